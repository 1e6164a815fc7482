package wafermon.sdk;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What an SDK was told by its builder and, where that says nothing, by the environment. */
final class Settings {
    private static final Pattern SERVICE = Pattern.compile("(?!wafermon$)[A-Za-z0-9._:-]{1,128}");
    private static final Pattern TRACE_ID = Pattern.compile("[!-~]{1,128}");
    private static final Pattern SPAN_ID = Pattern.compile("[0-9a-f]{16}");
    private static final Pattern TRACEPARENT = Pattern.compile(
            "[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*");
    private static final Pattern NUMBER = Pattern.compile("0*[1-9][0-9]{0,8}");
    private static final int BUFFER = 1_000;

    final Map<String, String> environment;
    final String service;
    final String host;
    final String token;
    final String spillDir;
    final int buffer;
    final Scope root;
    private final String url;

    Settings(MonitoringSDK.Builder given) {
        environment = given.environment;
        host = hostName();
        service = first(given.service, env("WAFERMON_SERVICE"), env("OTEL_SERVICE_NAME"), "");
        if (!SERVICE.matcher(service).matches()) {
            throw new IllegalArgumentException(
                    "a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon: '" + service + "'");
        }
        url = first(given.url, env("WAFERMON_URL"), Address.DEFAULT);
        token = first(given.token, env("WAFERMON_TOKEN"));
        spillDir = first(given.spillDir, env("WAFERMON_SPILL_DIR"));
        String wanted = first(env("WAFERMON_BUFFER"), "");
        int fromEnvironment = NUMBER.matcher(wanted).matches() ? Integer.parseInt(wanted) : BUFFER;
        buffer = given.buffer > 0 ? given.buffer : fromEnvironment;
        root = root(given.traceId);
    }

    /** Trace and span of the environment; a given trace id wins. */
    private Scope root(String given) {
        String trace = first(env("WAFERMON_TRACE_ID"), "");
        String span = first(env("WAFERMON_SPAN_ID"), "");
        Matcher parent = TRACEPARENT.matcher(first(env("TRACEPARENT"), ""));
        if (trace.isEmpty() && span.isEmpty() && parent.matches()) {
            trace = parent.group(1);
            span = parent.group(2);
        }
        String inherited = TRACE_ID.matcher(trace).matches() ? trace : null;
        return new Scope(given == null ? inherited : given, SPAN_ID.matcher(span).matches() ? span : null, null, null);
    }

    /** The value of a variable, null where it is unset or empty. */
    String env(String name) {
        return first(environment.get(name));
    }

    Address address(Consumer<String> say) {
        Address address = Address.parse(url);
        if (address == null) {
            say.accept("not a sidecar's url: '" + url + "'; using " + Address.DEFAULT);
            return Address.parse(Address.DEFAULT);
        }
        return address;
    }

    boolean disabled() {
        return !Set.of("", "0", "false", "no").contains(first(env("WAFERMON_DISABLED"), "").toLowerCase(Locale.ROOT));
    }

    boolean compress(Consumer<String> say) {
        String wanted = first(env("WAFERMON_COMPRESS"), "");
        if (!Set.of("", "zlib").contains(wanted)) {
            say.accept("no such compression in Java: '" + wanted + "'; WAFERMON_COMPRESS may be zlib");
        }
        return wanted.equals("zlib");
    }

    static String traceId(String traceId) {
        if (traceId == null || !TRACE_ID.matcher(traceId).matches()) {
            throw new IllegalArgumentException(
                    "a trace id is 1 to 128 printable ASCII characters without space, not '" + traceId + "'");
        }
        return traceId;
    }

    private static String first(String... candidates) {
        for (String candidate : candidates) {
            if (candidate != null && !candidate.isEmpty()) {
                return candidate;
            }
        }
        return candidates.length > 1 ? candidates[candidates.length - 1] : null;
    }

    private String hostName() {
        try {
            return Files.readString(Path.of("/proc/sys/kernel/hostname")).trim();
        } catch (IOException | RuntimeException error) {
            return first(env("HOSTNAME"), "localhost");  // not Linux
        }
    }
}
