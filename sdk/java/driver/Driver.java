import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import wafermon.sdk.MonitoringSDK;

/**
 * The conformance driver of the Java SDK: one JSON request per line on stdin, one JSON answer per line on stdout.
 *
 * <p>The protocol is in ../../conformance/README.md. Java can't change its environment, so {@code setenv} changes a copy
 * that SDKs are opened with.
 */
public final class Driver {
    private final Map<String, String> environment = new HashMap<>(System.getenv());
    private final List<MonitoringSDK> sdks = new ArrayList<>();

    private static final class Unsupported extends RuntimeException {
        private static final long serialVersionUID = 1L;
    }

    public static void main(String[] arguments) throws IOException {
        Driver driver = new Driver();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream answers = new PrintStream(System.out, true, "UTF-8");
        for (String line; (line = requests.readLine()) != null; ) {
            answers.println(json(driver.answer(map(new Parser(line).value()))));
        }
        System.exit(0);
    }

    private Map<String, Object> answer(Map<String, Object> request) {
        Map<String, Object> answer = new LinkedHashMap<>();
        try {
            boolean raw = "spawn".equals(request.get("call"));
            Map<String, Object> args = map(request.getOrDefault("args", Map.of()));
            Object result = carryOut((String) request.get("call"), raw ? args : map(given(args)));
            answer.put("ok", true);
            answer.put("result", result);
        } catch (Unsupported error) {
            answer.put("ok", false);
            answer.put("error", "unsupported");
        } catch (Exception error) {
            answer.put("ok", false);
            answer.put("error", error.toString());
        }
        return answer;
    }

    private MonitoringSDK sdk() {
        if (sdks.isEmpty()) {
            throw new IllegalStateException("nothing is open");
        }
        return sdks.get(sdks.size() - 1);
    }

    private Object carryOut(String call, Map<String, Object> args) throws Exception {
        switch (call) {
            case "open":
                sdks.add(open(args));
                return null;
            case "log_event":
                sdk().logEvent(string(args, "level"), string(args, "message"), fields(args, "context"));
                return null;
            case "log_metric":
                if ("counter".equals(args.get("kind"))) {
                    sdk().logCounter(string(args, "name"), number(args, "value"), string(args, "unit"), fields(args, "tags"));
                } else {
                    sdk().logMetric(string(args, "name"), number(args, "value"), string(args, "unit"), fields(args, "tags"));
                }
                return null;
            case "log_progress":
                sdk().logProgress(string(args, "job_id"), number(args, "percent"), string(args, "status"));
                return null;
            case "log_resource":
                if (args.isEmpty()) {
                    sdk().logResource();
                } else {
                    sdk().logResource(measured(args, "cpu"), measured(args, "mem"), measured(args, "disk"), measured(args, "net"));
                }
                return null;
            case "start_span":
                return sdk().startSpan(string(args, "name"), string(args, "trace_id"), fields(args, "tags"));
            case "end_span":
                String status = args.containsKey("status") ? string(args, "status") : "ok";
                sdk().endSpan(string(args, "span_id"), status, fields(args, "tags"));
                return null;
            case "set_trace_id":
                sdk().setTraceId(string(args, "trace_id"));
                return null;
            case "get_stats":
                return sdk().getStats().toMap();
            case "flush":
                return args.containsKey("timeout") ? sdk().flush(seconds(args, "timeout")) : sdk().flush();
            case "close":
                if (args.containsKey("timeout")) {
                    sdk().close(seconds(args, "timeout"));
                } else {
                    sdk().close();
                }
                return null;
            case "burst":
                return burst((int) number(args, "n"), (long) optional(args, "first"), (int) optional(args, "size"));
            case "spawn":
                return spawn(args);
            case "setenv":
                args.forEach((name, value) -> environment.compute(name, (same, before) -> (String) value));
                return null;
            case "sleep":
                Thread.sleep(seconds(args, "seconds").toMillis());
                return null;
            case "pid":
                return ProcessHandle.current().pid();
            case "exit":
                System.exit(0);
                return null;
            case "kill_self":
                new ProcessBuilder("kill", "-9", Long.toString(ProcessHandle.current().pid())).start();
                Thread.sleep(60_000);
                return null;
            default:
                throw new Unsupported();
        }
    }

    private MonitoringSDK open(Map<String, Object> args) {
        MonitoringSDK.Builder builder = MonitoringSDK.builder(string(args, "service")).environment(environment);
        builder.url(string(args, "url")).traceId(string(args, "trace_id"));
        builder.spillDir(string(args, "spill_dir")).token(string(args, "token"));
        if (args.get("buffer") != null) {
            builder.buffer((int) number(args, "buffer"));
        }
        return builder.build();
    }

    private Map<String, Object> burst(int count, long first, int size) {
        MonitoringSDK sdk = sdk();
        String message = size > 0 ? "x".repeat(size) : "burst";
        long[] took = new long[count];
        long began = System.nanoTime();
        for (int i = 0; i < count; i++) {
            long before = System.nanoTime();
            sdk.logEvent("info", message, Map.of("i", first + i, "file", "a.dat", "ok", true, "x", 1.5));
            took[i] = System.nanoTime() - before;
        }
        double elapsed = (System.nanoTime() - began) / 1e9;
        Arrays.sort(took);
        return Map.of("elapsed", elapsed, "p50", took[count / 2] / 1e3, "p99", took[(int) (count * 0.99)] / 1e3,
                "p999", took[(int) (count * 0.999)] / 1e3, "max", took[count - 1] / 1e3);
    }

    private Map<String, Object> spawn(Map<String, Object> args) throws IOException, InterruptedException {
        List<String> argv = new ArrayList<>();
        ((List<?>) args.get("argv")).forEach(word -> argv.add((String) word));
        ProcessBuilder builder = new ProcessBuilder(argv).redirectError(ProcessBuilder.Redirect.INHERIT);
        builder.environment().clear();
        builder.environment().putAll(sdks.isEmpty() ? environment : sdk().childEnv());
        Process child = builder.start();
        try (OutputStream stdin = child.getOutputStream()) {
            stdin.write(string(args, "stdin").getBytes(StandardCharsets.US_ASCII));
        } catch (IOException error) {
            // it has ended without reading
        }
        String stdout = new String(child.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        return Map.of("stdout", stdout, "status", child.waitFor());
    }

    // ---- arguments ----

    private static String string(Map<String, Object> args, String name) {
        Object value = args.get(name);
        return value instanceof byte[] ? new String((byte[]) value, StandardCharsets.UTF_8) : (String) value;
    }

    private static double number(Map<String, Object> args, String name) {
        Object value = args.get(name);
        if (!(value instanceof Number)) {
            throw new IllegalArgumentException(name + " is no number: " + value);
        }
        return ((Number) value).doubleValue();
    }

    private static double optional(Map<String, Object> args, String name) {
        return args.get(name) == null ? 0 : number(args, name);
    }

    private static double measured(Map<String, Object> args, String name) {
        return args.get(name) == null ? Double.NaN : number(args, name);
    }

    private static Duration seconds(Map<String, Object> args, String name) {
        return Duration.ofMillis(Math.round(1_000 * number(args, name)));
    }

    private static Map<String, Object> fields(Map<String, Object> args, String name) {
        return args.get(name) == null ? null : map(args.get(name));
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> map(Object value) {
        return (Map<String, Object>) value;
    }

    /** A value without the notations for what JSON can't say. */
    private static Object given(Object value) {
        if (value instanceof List) {
            List<Object> items = new ArrayList<>();
            ((List<?>) value).forEach(item -> items.add(given(item)));
            return items;
        }
        if (!(value instanceof Map)) {
            return value;
        }
        Map<String, Object> object = map(value);
        String first = object.size() == 1 ? object.keySet().iterator().next() : "";
        if (first.startsWith("$")) {
            return notation(first, object.get(first));
        }
        Map<String, Object> copy = new LinkedHashMap<>();
        object.forEach((name, item) -> copy.put(name, given(item)));
        return copy;
    }

    private static Object notation(String name, Object operand) {
        switch (name) {
            case "$bytes":
                return Base64.getDecoder().decode((String) operand);
            case "$codes":
                StringBuilder text = new StringBuilder();
                ((List<?>) operand).forEach(code -> text.appendCodePoint(((Long) code).intValue()));
                return text.toString();
            case "$float":
                return Double.valueOf((String) operand);
            case "$int":
                return new BigInteger((String) operand).longValueExact();
            case "$repeat":
                List<?> repeat = (List<?>) operand;
                return ((String) repeat.get(0)).repeat(((Long) repeat.get(1)).intValue());
            case "$nest":
                Object nested = "end";
                for (long depth = (Long) operand; depth > 0; depth--) {
                    nested = new HashMap<>(Map.of("k", nested));
                }
                return nested;
            case "$cycle":
                Map<String, Object> cycle = new HashMap<>();
                cycle.put("self", cycle);
                return cycle;
            default:
                throw new Unsupported();
        }
    }

    // ---- JSON ----

    private static String json(Object value) {
        if (value instanceof Map) {
            StringBuilder text = new StringBuilder("{");
            map(value).forEach((name, item) ->
                    text.append(text.length() > 1 ? "," : "").append(json(name)).append(':').append(json(item)));
            return text.append('}').toString();
        }
        if (!(value instanceof String)) {
            return String.valueOf(value);
        }
        StringBuilder text = new StringBuilder("\"");
        for (char c : ((String) value).toCharArray()) {
            boolean plain = c >= ' ' && c < 0x7f && c != '"' && c != '\\';
            text.append(plain ? String.valueOf(c) : String.format("\\u%04x", (int) c));
        }
        return text.append('"').toString();
    }

    /** Reads one JSON value. */
    private static final class Parser {
        private final String text;
        private int at;

        Parser(String text) {
            this.text = text;
        }

        Object value() {
            char first = next();
            if (first == '{') {
                Map<String, Object> object = new LinkedHashMap<>();
                for (char c = next(); c != '}'; c = next()) {
                    String name = (String) (c == ',' ? value() : back().value());
                    next();
                    object.put(name, value());
                }
                return object;
            }
            if (first == '[') {
                List<Object> list = new ArrayList<>();
                for (char c = next(); c != ']'; c = next()) {
                    list.add(c == ',' ? value() : back().value());
                }
                return list;
            }
            return first == '"' ? string() : back().literal();
        }

        private Parser back() {
            at--;
            return this;
        }

        private char next() {
            while (text.charAt(at) == ' ') {
                at++;
            }
            return text.charAt(at++);
        }

        private String string() {
            StringBuilder string = new StringBuilder();
            for (char c = text.charAt(at++); c != '"'; c = text.charAt(at++)) {
                if (c == '\\') {
                    c = text.charAt(at++);
                    int letter = "bfnrt".indexOf(c);
                    if (c == 'u') {
                        c = (char) Integer.parseInt(text.substring(at, at + 4), 16);
                        at += 4;
                    } else if (letter >= 0) {
                        c = "\b\f\n\r\t".charAt(letter);
                    }
                }
                string.append(c);
            }
            return string.toString();
        }

        private Object literal() {
            int begin = at;
            while (at < text.length() && ",]} ".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            String word = text.substring(begin, at);
            if (word.equals("null")) {
                return null;
            }
            if (word.equals("true") || word.equals("false")) {
                return Boolean.valueOf(word);
            }
            return word.matches("-?[0-9]+") ? (Object) Long.valueOf(word) : Double.valueOf(word);
        }
    }
}
