import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import wafermon.sdk.Level;
import wafermon.sdk.MonitoringSDK;
import wafermon.sdk.Span;

/**
 * Reads files and tells the sidecar about it: {@code java -jar build/example.jar FILE...}
 *
 * <p>The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.
 */
public final class Example {
    public static void main(String[] names) {
        try (MonitoringSDK sdk = MonitoringSDK.open("example")) {
            sdk.setTraceId("job-4711");
            int done = 0;
            for (String name : names) {
                read(sdk, name);
                sdk.logProgress("job-4711", 100.0 * ++done / names.length);
            }
            sdk.logResource();
            sdk.logProgress("job-4711", 100, "done");
            boolean delivered = sdk.flush(Duration.ofSeconds(2));
            String where = delivered ? "all acknowledged" : "left for the sidecar";
            System.out.println(sdk.getStats().called + " messages, " + where);
        }
    }

    private static void read(MonitoringSDK sdk, String name) {
        try (Span span = sdk.span("read", null, Map.of("file", name))) {
            try {
                byte[] data = Files.readAllBytes(Path.of(name));
                long lines = new String(data).lines().count();
                sdk.logEvent(Level.INFO, "read", Map.of("file", name, "lines", lines));
                sdk.logMetric("bytes_read", data.length, "By", Map.of("file", name));
            } catch (IOException error) {
                span.error(error);
                sdk.logEvent(Level.ERROR, "unreadable", Map.of("file", name, "reason", error.toString()));
            }
        }
    }
}
