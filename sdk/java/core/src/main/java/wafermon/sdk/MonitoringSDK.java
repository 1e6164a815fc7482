package wafermon.sdk;

import java.io.IOException;
import java.lang.ref.Cleaner;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;

/**
 * One application's line to its sidecar.
 *
 * <ul>
 * <li>A call never waits for the network and never throws because of it; only a programming error (an unknown level, a
 *     percent of 300) throws, an {@link IllegalArgumentException}, at the call. What a call was given is fixed when it
 *     returns.
 * <li>A message is kept until the sidecar acknowledges it. While that is away, up to {@code buffer} messages wait in
 *     memory; what does not fit goes to spill files, and only when those are full or can't be written is a message
 *     dropped, which is counted.
 * <li>All threads may share an SDK, virtual threads too. The current span is per thread; {@link #wrap(Runnable)} carries
 *     it into another.
 * <li>{@link #getStats()} adds up: called = acked + rejected + dropped + waiting + handed over.
 * </ul>
 *
 * <p>At the JVM's normal exit the SDK delivers what is waiting, or leaves it in a spill file that the sidecar takes up.
 */
public final class MonitoringSDK implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();
    private static final long CLOSE = 2_000;
    private static final double NONE = Double.NaN;

    private final Map<String, String> environment;
    private final Sender sender;
    private final Messages messages;
    private final ThreadLocal<Scope> local = new ThreadLocal<>();
    private final Map<String, Scope> spans = new ConcurrentHashMap<>();
    private long measuredAt = System.nanoTime();
    private Duration measuredCpu = cpuTime();

    private MonitoringSDK(Builder given) {
        environment = given.environment;
        Sender made = new Sender(new Settings(given));
        sender = made;
        messages = made.messages;
        CLEANER.register(this, () -> made.beginClose(CLOSE));
    }

    // ---- open ----

    /**
     * An SDK with everything but the service from the environment.
     *
     * @param service who is speaking: 1-128 of {@code A-Z a-z 0-9 . _ - :}; null for that of the environment
     *     ({@code WAFERMON_SERVICE}, {@code OTEL_SERVICE_NAME})
     * @return the SDK, which connects at its first call
     * @throws IllegalArgumentException no service, or one of other characters
     */
    public static MonitoringSDK open(String service) {
        return builder(service).build();
    }

    /**
     * An SDK with more than a service.
     *
     * @param service as of {@link #open}
     * @return what builds it
     */
    public static Builder builder(String service) {
        return new Builder(service);
    }

    /** Says what an SDK is to be; what it does not say comes from the environment. */
    public static final class Builder {
        final String service;
        String url;
        String traceId;
        String spillDir;
        String token;
        int buffer;
        Map<String, String> environment = System.getenv();

        private Builder(String service) {
            this.service = service;
        }

        /**
         * Where the sidecar listens.
         *
         * @param url {@code tcp://host:port}, {@code unix:///path} (Java 16 and newer) or {@code tls://host:port}; else
         *     {@code WAFERMON_URL}, else {@code tcp://127.0.0.1:7411}
         * @return this builder
         */
        public Builder url(String url) {
            this.url = url;
            return this;
        }

        /**
         * The trace of everything that names no other.
         *
         * @param traceId 1-128 printable ASCII characters without space; else {@code WAFERMON_TRACE_ID}, or that of
         *     {@code TRACEPARENT}
         * @return this builder
         * @throws IllegalArgumentException it can't be a trace id
         */
        public Builder traceId(String traceId) {
            this.traceId = traceId == null ? null : Settings.traceId(traceId);
            return this;
        }

        /**
         * How many messages may wait in memory.
         *
         * @param messages at least 1; else {@code WAFERMON_BUFFER}, else 1000
         * @return this builder
         * @throws IllegalArgumentException it is less than 1
         */
        public Builder buffer(int messages) {
            if (messages < 1) {
                throw new IllegalArgumentException("a buffer holds at least one message: " + messages);
            }
            this.buffer = messages;
            return this;
        }

        /**
         * Where messages go that find no room in memory.
         *
         * @param folder else {@code WAFERMON_SPILL_DIR}, else {@code /var/spool/wafermon} where that is writable, else
         *     {@code /tmp/wafermon-UID}
         * @return this builder
         */
        public Builder spillDir(String folder) {
            this.spillDir = folder;
            return this;
        }

        /**
         * What the sidecar's listener asks for.
         *
         * @param token else {@code WAFERMON_TOKEN}
         * @return this builder
         */
        public Builder token(String token) {
            this.token = token;
            return this;
        }

        /**
         * Read these variables instead of the process's environment, which Java can't change.
         *
         * @param environment names and values; an empty value counts as not set
         * @return this builder
         */
        public Builder environment(Map<String, String> environment) {
            this.environment = Map.copyOf(environment);
            return this;
        }

        /**
         * Open the SDK. The sidecar need not be there.
         *
         * @return the SDK, which connects at its first call
         * @throws IllegalArgumentException there is no service, or it has other characters
         */
        public MonitoringSDK build() {
            return new MonitoringSDK(this);
        }
    }

    // ---- calls ----

    /**
     * Something happened.
     *
     * @param level how much it matters
     * @param message what happened; may be empty
     * @throws IllegalArgumentException level or message is null
     */
    public void logEvent(Level level, String message) {
        logEvent(level, message, null);
    }

    /**
     * Something happened.
     *
     * @param level how much it matters
     * @param message what happened; may be empty
     * @param context what else is known: text, numbers, booleans, null, and maps, collections and arrays of them; other
     *     objects are sent as text. Null for none
     * @throws IllegalArgumentException level or message is null
     */
    public void logEvent(Level level, String message, Map<String, ?> context) {
        logEvent(Messages.clock(), level, message, context);
    }

    /**
     * Something happened.
     *
     * @param level as of {@link Level#of}
     * @param message what happened; may be empty
     * @throws IllegalArgumentException there is no such level, or the message is null
     */
    public void logEvent(String level, String message) {
        logEvent(Level.of(level), message, null);
    }

    /**
     * Something happened.
     *
     * @param level as of {@link Level#of}
     * @param message what happened; may be empty
     * @param context as of {@link #logEvent(Level, String, Map)}
     * @throws IllegalArgumentException there is no such level, or the message is null
     */
    public void logEvent(String level, String message, Map<String, ?> context) {
        logEvent(Level.of(level), message, context);
    }

    /**
     * Something happened earlier: for loggers whose records keep their own time.
     *
     * @param ts when: microseconds since the Unix epoch
     * @param level how much it matters
     * @param message what happened; may be empty
     * @param context as of {@link #logEvent(Level, String, Map)}
     * @throws IllegalArgumentException level or message is null
     */
    public void logEvent(long ts, Level level, String message, Map<String, ?> context) {
        if (level == null || message == null) {
            throw new IllegalArgumentException("an event has a level and a message");
        }
        sender.put(messages.event(ts, current(), level, message, context));
    }

    /**
     * A measured number.
     *
     * @param name what was measured; not empty
     * @param value the number; NaN and the infinities are sent as text
     * @throws IllegalArgumentException the name is null or empty
     */
    public void logMetric(String name, double value) {
        logMetric(name, value, null, null);
    }

    /**
     * A measured number.
     *
     * @param name what was measured; not empty
     * @param value the number; NaN and the infinities are sent as text
     * @param unit UCUM where there is one, as {@code s}, {@code By}, {@code Cel}; null for none
     * @param tags text and numbers that tell series apart; null for none
     * @throws IllegalArgumentException the name is null or empty
     */
    public void logMetric(String name, double value, String unit, Map<String, ?> tags) {
        sender.put(messages.metric(current(), name(name), value, unit, false, Json.tags(tags)));
    }

    /**
     * How many more since the last call: a metric of kind {@code counter}.
     *
     * @param name what is counted; not empty
     * @param increment how many more
     * @param unit as of {@link #logMetric(String, double, String, Map)}
     * @param tags as of {@link #logMetric(String, double, String, Map)}
     * @throws IllegalArgumentException the name is null or empty
     */
    public void logCounter(String name, double increment, String unit, Map<String, ?> tags) {
        sender.put(messages.metric(current(), name(name), increment, unit, true, Json.tags(tags)));
    }

    /**
     * How far a job is, with status {@code running}.
     *
     * @param jobId as a trace id: 1-128 printable ASCII characters without space
     * @param percent 0 to 100
     * @throws IllegalArgumentException one of them can't be right
     */
    public void logProgress(String jobId, double percent) {
        logProgress(jobId, percent, null);
    }

    /**
     * How far a job is.
     *
     * @param jobId as a trace id: 1-128 printable ASCII characters without space
     * @param percent 0 to 100
     * @param status 1-64 characters; {@code done}, {@code failed} and {@code cancelled} end the job. Null for
     *     {@code running}
     * @throws IllegalArgumentException one of them can't be right
     */
    public void logProgress(String jobId, double percent, String status) {
        if (!(percent >= 0 && percent <= 100)) {
            throw new IllegalArgumentException("a percent is a number from 0 to 100, not " + percent);
        }
        String given = status == null ? "running" : status;
        if (given.isEmpty() || given.length() > 64) {
            throw new IllegalArgumentException("a status has 1 to 64 characters: '" + given + "'");
        }
        sender.put(messages.progress(current(), Settings.traceId(jobId), percent, given));
    }

    /** What this process uses: percent of one core since the last time, resident bytes, bytes read and written. */
    public synchronized void logResource() {
        long now = System.nanoTime();
        Duration cpu = cpuTime();
        double percent = 100.0 * cpu.minus(measuredCpu).toNanos() / Math.max(1, now - measuredAt);
        measuredAt = now;
        measuredCpu = cpu;
        double disk = proc("io", "read_bytes") + proc("io", "write_bytes");
        logResource(Math.round(percent * 1_000) / 1_000.0, 1_024 * proc("status", "VmRSS"), disk, NONE);
    }

    /**
     * What a process uses. NaN leaves a number out.
     *
     * @param cpu percent of one core
     * @param mem resident bytes
     * @param disk bytes read and written
     * @param net bytes sent and received
     */
    public void logResource(double cpu, double mem, double disk, double net) {
        sender.put(messages.resource(current(), cpu, mem, disk, net));
    }

    private static Duration cpuTime() {
        return ProcessHandle.current().info().totalCpuDuration().orElse(Duration.ZERO);
    }

    /** A number of /proc; NaN where there is none, as on another system. */
    private static double proc(String file, String key) {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self", file), StandardCharsets.ISO_8859_1)) {
                if (line.startsWith(key + ":")) {
                    return Double.parseDouble(line.substring(key.length() + 1).replace("kB", ""));
                }
            }
        } catch (IOException | RuntimeException error) {
            // not told here
        }
        return NONE;
    }

    // ---- spans and traces ----

    /**
     * Open a span for a block; it is the current one of this thread until it is closed.
     *
     * @param name what is done; not empty
     * @return the span, to be closed
     * @throws IllegalArgumentException the name is null or empty
     */
    public Span span(String name) {
        return new Span(this, startSpan(name, null, null));
    }

    /**
     * Open a span for a block.
     *
     * @param name what is done; not empty
     * @param traceId a trace of its own; null for the current one, or a new one where there is none
     * @param tags text and numbers; null for none
     * @return the span, to be closed
     * @throws IllegalArgumentException name or trace id can't be right
     */
    public Span span(String name, String traceId, Map<String, ?> tags) {
        return new Span(this, startSpan(name, traceId, tags));
    }

    /**
     * Open a span inside the current one and make it the current one of this thread.
     *
     * @param name what is done; not empty
     * @return its id, 16 hex digits
     * @throws IllegalArgumentException the name is null or empty
     */
    public String startSpan(String name) {
        return startSpan(name, null, null);
    }

    /**
     * Open a span inside the current one and make it the current one of this thread.
     *
     * @param name what is done; not empty
     * @param traceId a trace of its own; null for the current one, or a new one where there is none
     * @param tags text and numbers; null for none
     * @return its id, 16 hex digits
     * @throws IllegalArgumentException name or trace id can't be right
     */
    public String startSpan(String name, String traceId, Map<String, ?> tags) {
        Scope around = current();
        String trace = traceId != null ? Settings.traceId(traceId)
                : around.traceId != null ? around.traceId : sender.id() + sender.id();
        Scope span = new Scope(trace, sender.id(), around == sender.root ? null : around, null);
        span.name = name(name);
        span.parentId = around.spanId;
        span.tags = Json.tags(tags);
        span.ts = Messages.clock();
        span.started = System.nanoTime();
        spans.put(span.spanId, span);
        local.set(span);
        sender.put(messages.spanStart(span));
        return span.spanId;
    }

    /**
     * Close a span with status {@code ok}.
     *
     * @param spanId what {@link #startSpan(String)} gave
     * @throws IllegalArgumentException no such span is open
     */
    public void endSpan(String spanId) {
        endSpan(spanId, "ok", null);
    }

    /**
     * Close a span; in any thread, and out of order too.
     *
     * @param spanId what {@link #startSpan(String)} gave
     * @param status {@code ok} or {@code error}
     * @param tags they join those of the start; null for none
     * @throws IllegalArgumentException no such span is open, or there is no such status
     */
    public void endSpan(String spanId, String status, Map<String, ?> tags) {
        if (!"ok".equals(status) && !"error".equals(status)) {
            throw new IllegalArgumentException("a span ends ok or error, not '" + status + "'");
        }
        Scope span = spanId == null ? null : spans.remove(spanId);
        if (span == null) {
            throw new IllegalArgumentException("no such span is open: '" + spanId + "'");
        }
        span.ended = true;
        long duration = (System.nanoTime() - span.started) / 1_000;
        Map<String, Object> merged = Json.tags(tags);
        if (span.tags != null && merged != null) {
            Map<String, Object> both = new LinkedHashMap<>(span.tags);
            both.putAll(merged);
            merged = both;
        }
        sender.put(messages.spanEnd(span, status, duration, merged == null ? span.tags : merged));
    }

    boolean isOpen(String spanId) {
        return spans.containsKey(spanId);
    }

    /**
     * From here on, what is logged belongs to this trace; a span that is open ends in its own.
     *
     * @param traceId 1-128 printable ASCII characters without space
     * @throws IllegalArgumentException it can't be a trace id
     */
    public void setTraceId(String traceId) {
        Scope inner = current();
        Scope root = sender.root;
        sender.root = new Scope(Settings.traceId(traceId), root.spanId, null, null);
        if (inner != root) {
            local.set(new Scope(traceId, inner.spanId, inner.outer, inner.span));
        }
    }

    /** Trace and span of this thread; a span that has ended, wherever, is current nowhere. */
    private Scope current() {
        Scope scope = local.get();
        if (scope == null) {
            return sender.root;
        }
        if (!scope.span.ended) {
            return scope;
        }
        while (scope != null && scope.span.ended) {
            scope = scope.outer;
        }
        local.set(scope);
        return scope == null ? sender.root : scope;
    }

    /**
     * A task that runs in the span of the thread that calls this, whichever thread runs it.
     *
     * @param task what is to be done
     * @return the same, in this span
     */
    public Runnable wrap(Runnable task) {
        Callable<Void> wrapped = wrap(() -> {
            task.run();
            return null;
        });
        return () -> {
            try {
                wrapped.call();
            } catch (RuntimeException error) {
                throw error;
            } catch (Exception error) {
                throw new IllegalStateException(error);  // a Runnable throws none of these
            }
        };
    }

    /**
     * A task that runs in the span of the thread that calls this, whichever thread runs it.
     *
     * @param task what is to be done
     * @param <T> what it gives
     * @return the same, in this span
     */
    public <T> Callable<T> wrap(Callable<T> task) {
        Scope scope = current();
        Scope carried = scope == sender.root ? null : scope;
        return () -> {
            Scope before = local.get();
            local.set(carried);
            try {
                return task.call();
            } finally {
                local.set(before);
            }
        };
    }

    /**
     * The environment for a child process, so that it falls into the current trace, under the current span. With a
     * {@link ProcessBuilder}: {@code sdk.childEnv(builder.environment())}.
     *
     * @return this process's environment with {@code WAFERMON_TRACE_ID}, {@code WAFERMON_SPAN_ID} and
     *     {@code TRACEPARENT} as they are here and now
     */
    public Map<String, String> childEnv() {
        return childEnv(new HashMap<>(environment));
    }

    /**
     * Put the current trace and span into an environment.
     *
     * @param environment that of a child process, which is changed
     * @return the same
     */
    public Map<String, String> childEnv(Map<String, String> environment) {
        Scope scope = current();
        export(environment, "WAFERMON_TRACE_ID", scope.traceId);
        export(environment, "WAFERMON_SPAN_ID", scope.spanId);
        export(environment, "TRACEPARENT", scope.traceId == null ? null : traceparent(scope.traceId, scope.spanId));
        return environment;
    }

    private static void export(Map<String, String> environment, String name, String value) {
        if (value == null) {
            environment.remove(name);
        } else {
            environment.put(name, value);
        }
    }

    /** W3C's trace context: of a job's id its hash, which also stands for the span where none is open. */
    private static String traceparent(String traceId, String spanId) {
        StringBuilder hash = new StringBuilder();
        try {
            for (byte one : MessageDigest.getInstance("SHA-256").digest(Json.ascii(traceId))) {
                hash.append(Character.forDigit(one >> 4 & 15, 16)).append(Character.forDigit(one & 15, 16));
            }
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);  // every Java has it
        }
        String trace = traceId.matches("(?!0{32})[0-9a-f]{32}") ? traceId : hash.substring(0, 32);
        return "00-" + trace + "-" + (spanId == null ? hash.substring(32, 48) : spanId) + "-01";
    }

    private static String name(String name) {
        if (name == null || name.isEmpty()) {
            throw new IllegalArgumentException("a name is a non-empty string, not " + name);
        }
        return name;
    }

    // ---- state ----

    /**
     * The state and the counts.
     *
     * @return as they are now
     */
    public Stats getStats() {
        return sender.stats();
    }

    /**
     * Wait until all is acknowledged, 5 s at most.
     *
     * @return whether nothing is waiting
     */
    public boolean flush() {
        return flush(Duration.ofSeconds(5));
    }

    /**
     * Wait until all is acknowledged.
     *
     * @param timeout how long at most
     * @return whether nothing is waiting; false at once where the thread is interrupted
     */
    public boolean flush(Duration timeout) {
        return sender.flush(timeout.toMillis());
    }

    /** Deliver what is waiting within 2 s and leave the rest in a spill file for the sidecar. */
    @Override
    public void close() {
        sender.close(CLOSE);
    }

    /**
     * Deliver what is waiting and leave the rest in a spill file for the sidecar; at once where that is not there.
     * Calls after it are counted as dropped.
     *
     * @param timeout how long at most
     */
    public void close(Duration timeout) {
        sender.close(timeout.toMillis());
    }
}
