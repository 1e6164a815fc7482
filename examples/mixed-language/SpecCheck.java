import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import wafermon.sdk.Level;
import wafermon.sdk.MonitoringSDK;
import wafermon.sdk.Span;

/**
 * Checks the dies of a lot against the limits of its product: {@code spec-check LIMITS PRODUCT LOT}
 *
 * <p>Reads a line per die from standard input (wafer, x, y, threshold voltage, drive current, leakage, bin). Has {@code
 * wafer-map}, in LOT_PROGRAMS, draw which dies are outside, where that is there. Writes nothing to standard output, which
 * belongs to the program that has started it. Trace and span are in its environment.
 */
public final class SpecCheck {
    private static final String[] MEASURED = {"vth_v", "idsat_ua", "ileak_na"};

    /** What a good die of one product measures. */
    private static final class Limits {
        private final Map<String, double[]> ranges = new LinkedHashMap<>();

        static Limits read(Path file, String product) throws IOException {
            Limits limits = new Limits();
            boolean ours = false;
            for (String line : Files.readAllLines(file)) {
                if (line.startsWith("[")) {
                    ours = line.strip().equals("[" + product + "]");
                } else if (ours && line.contains("=")) {
                    String[] words = line.strip().split("[=\\s]+");
                    limits.ranges.put(words[0], new double[] {Double.parseDouble(words[1]), Double.parseDouble(words[2])});
                }
            }
            return limits;
        }

        boolean hold(String name, double value) {
            double[] range = ranges.get(name);
            return range == null || range[0] <= value && value <= range[1];
        }
    }

    private final MonitoringSDK sdk;
    private final Map<String, Integer> outside = new TreeMap<>();
    private final List<String> map = new ArrayList<>();

    private SpecCheck(MonitoringSDK sdk) {
        this.sdk = sdk;
    }

    private void check(Limits limits, BufferedReader rows) throws IOException {
        for (String row = rows.readLine(); row != null; row = rows.readLine()) {
            String[] values = row.split(" ");
            boolean good = true;
            for (int i = 0; i < MEASURED.length; i++) {
                good &= limits.hold(MEASURED[i], Double.parseDouble(values[3 + i]));
            }
            outside.merge(values[0], good ? 0 : 1, Integer::sum);
            map.add(values[0] + " " + values[1] + " " + values[2] + " " + (good ? "inside" : "outside"));
        }
        outside.forEach((wafer, dies) -> sdk.logMetric("dies_outside", dies, "{die}", Map.of("wafer", wafer)));
    }

    /** A child process: it gets trace and span by its environment, which Java hands over. */
    private void draw(String lot) throws IOException, InterruptedException {
        Path program = Path.of(System.getenv().getOrDefault("LOT_PROGRAMS", ""), "wafer-map");
        if (!Files.isExecutable(program)) {
            sdk.logEvent(Level.DEBUG, "no maps are drawn here", Map.of("program", program.toString()));
            return;
        }
        ProcessBuilder builder = new ProcessBuilder(program.toString(), lot);
        builder.redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.INHERIT);
        sdk.childEnv(builder.environment());
        Process child = builder.start();
        try (Writer out = new OutputStreamWriter(child.getOutputStream(), StandardCharsets.UTF_8)) {
            for (String line : map) {
                out.write(line + "\n");
            }
        }
        int status = child.waitFor();
        if (status != 0) {
            sdk.logEvent(Level.ERROR, "the maps could not be drawn", Map.of("lot", lot, "status", status));
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        MonitoringSDK sdk = MonitoringSDK.open("spec-check");
        int status = 0;
        try (Span span = sdk.span("check", null, Map.of("lot", arguments[2], "product", arguments[1]))) {
            SpecCheck checking = new SpecCheck(sdk);
            try {
                Limits limits = Limits.read(Path.of(arguments[0]), arguments[1]);
                checking.check(limits, new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
                int dies = checking.outside.values().stream().mapToInt(Integer::intValue).sum();
                sdk.logEvent(Level.INFO, "lot checked", Map.of("lot", arguments[2], "outside", dies));
                checking.draw(arguments[2]);
            } catch (IOException | RuntimeException error) {
                span.error(error);
                sdk.logEvent(Level.ERROR, "the lot could not be checked", Map.of("reason", error.toString()));
                status = 1;
            }
        }
        System.err.println("spec-check: " + sdk.getStats().called + " messages");
        sdk.close();
        System.exit(status);
    }
}
