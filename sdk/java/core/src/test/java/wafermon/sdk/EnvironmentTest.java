package wafermon.sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.HashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;

class EnvironmentTest {
    private static MonitoringSDK open(Map<String, String> environment) {
        return MonitoringSDK.builder("env").environment(environment).build();
    }

    @Test
    void childrenGetATraceparent() {
        try (MonitoringSDK sdk = open(Map.of("PATH", "/bin", "WAFERMON_DISABLED", "1"))) {
            assertNull(sdk.childEnv().get("TRACEPARENT"), "there is no trace");
            sdk.setTraceId("4bf92f3577b34da6a3ce929d0e0e4736");
            // echo -n 4bf92f3577b34da6a3ce929d0e0e4736 | sha256sum | cut -c 33-48
            assertEquals("00-4bf92f3577b34da6a3ce929d0e0e4736-76445dc23178f8b3-01", sdk.childEnv().get("TRACEPARENT"));
            String span = sdk.startSpan("s");
            Map<String, String> child = sdk.childEnv();
            assertEquals("/bin", child.get("PATH"));
            assertEquals(span, child.get("WAFERMON_SPAN_ID"));
            assertEquals("00-4bf92f3577b34da6a3ce929d0e0e4736-" + span + "-01", child.get("TRACEPARENT"));
            String job = sdk.startSpan("t", "job-4711", null);
            // echo -n job-4711 | sha256sum | cut -c -32
            assertEquals("00-89610d644886ec3ac1e62098008f516e-" + job + "-01", sdk.childEnv().get("TRACEPARENT"));
        }
    }

    @Test
    void whatIsNoLongerSoIsRemoved() {
        String old = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        try (MonitoringSDK sdk = open(Map.of("WAFERMON_DISABLED", "1"))) {
            Map<String, String> child = new HashMap<>(Map.of("TRACEPARENT", old, "WAFERMON_SPAN_ID", "x", "HOME", "/"));
            assertEquals(Map.of("HOME", "/"), sdk.childEnv(child));
        }
    }

    @Test
    void whatCannotBeRightIsRefused() {
        MonitoringSDK.Builder builder = MonitoringSDK.builder("wafermon").environment(Map.of());
        assertThrows(IllegalArgumentException.class, builder::build, "the sidecar's own name");
        assertThrows(IllegalArgumentException.class, () -> builder.buffer(0));
        assertThrows(IllegalArgumentException.class, () -> builder.traceId("a b"));
        assertThrows(IllegalArgumentException.class, MonitoringSDK.builder(null).environment(Map.of())::build);
    }
}
