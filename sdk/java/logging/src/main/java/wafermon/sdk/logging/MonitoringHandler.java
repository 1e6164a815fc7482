package wafermon.sdk.logging;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.logging.ErrorManager;
import java.util.logging.Formatter;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.SimpleFormatter;
import wafermon.sdk.MonitoringSDK;

/** Sends log records as events, at the time that the record has. Its logger, source and exception are in the context. */
public final class MonitoringHandler extends Handler {
    private static final Formatter FORMATTER = new SimpleFormatter();

    private final MonitoringSDK sdk;
    private final boolean own;

    /**
     * With an SDK of its own, from the environment: for {@code logging.properties}.
     *
     * @throws IllegalArgumentException neither {@code WAFERMON_SERVICE} nor {@code OTEL_SERVICE_NAME} is set
     */
    public MonitoringHandler() {
        this.sdk = MonitoringSDK.open(null);
        this.own = true;
    }

    /**
     * With the SDK of a program, in whose spans the events then are.
     *
     * @param sdk it stays open when the handler is closed
     */
    public MonitoringHandler(MonitoringSDK sdk) {
        this.sdk = sdk;
        this.own = false;
    }

    @Override
    public void publish(LogRecord record) {
        if (!isLoggable(record)) {
            return;
        }
        try {
            Map<String, Object> context = new LinkedHashMap<>();
            context.put("logger", record.getLoggerName());
            context.put("class", record.getSourceClassName());
            context.put("method", record.getSourceMethodName());
            context.values().removeIf(value -> value == null);
            if (record.getThrown() != null) {
                StringWriter trace = new StringWriter();
                record.getThrown().printStackTrace(new PrintWriter(trace));
                context.put("exception", trace.toString());
            }
            Instant at = record.getInstant();
            long ts = at.getEpochSecond() * 1_000_000 + at.getNano() / 1_000;
            sdk.logEvent(ts, level(record.getLevel()), String.valueOf(FORMATTER.formatMessage(record)), context);
        } catch (RuntimeException error) {
            reportError(null, error, ErrorManager.FORMAT_FAILURE);
        }
    }

    private static wafermon.sdk.Level level(Level level) {
        int value = level.intValue();
        if (value >= Level.SEVERE.intValue()) {
            return wafermon.sdk.Level.ERROR;
        }
        if (value >= Level.WARNING.intValue()) {
            return wafermon.sdk.Level.WARNING;
        }
        return value >= Level.INFO.intValue() ? wafermon.sdk.Level.INFO : wafermon.sdk.Level.DEBUG;
    }

    /** Nothing: the SDK sends by itself, and {@code MonitoringSDK.flush} waits for it. */
    @Override
    public void flush() {
        // a logger flushes after each record, and may not wait for a network
    }

    @Override
    public void close() {
        if (own) {
            sdk.close();
        }
    }
}
