package wafermon.sdk.slf4j;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.slf4j.Marker;
import org.slf4j.event.KeyValuePair;
import org.slf4j.event.Level;
import org.slf4j.event.LoggingEvent;
import org.slf4j.helpers.LegacyAbstractLogger;
import org.slf4j.helpers.MessageFormatter;
import org.slf4j.spi.LoggingEventAware;

/** Sends what is logged as events. Logger, thread, MDC, key-value pairs, markers and exception are in the context. */
final class MonitoringLogger extends LegacyAbstractLogger implements LoggingEventAware {
    private static final long serialVersionUID = 1L;
    private static final long CLOCK = 0;

    private final transient MonitoringLoggerFactory factory;

    MonitoringLogger(String name, MonitoringLoggerFactory factory) {
        this.name = name;
        this.factory = factory;
    }

    @Override
    public boolean isTraceEnabled() {
        return factory.takes(Level.TRACE);
    }

    @Override
    public boolean isDebugEnabled() {
        return factory.takes(Level.DEBUG);
    }

    @Override
    public boolean isInfoEnabled() {
        return factory.takes(Level.INFO);
    }

    @Override
    public boolean isWarnEnabled() {
        return factory.takes(Level.WARN);
    }

    @Override
    public boolean isErrorEnabled() {
        return factory.takes(Level.ERROR);
    }

    @Override
    protected String getFullyQualifiedCallerName() {
        return null;
    }

    @Override
    protected void handleNormalizedLoggingCall(Level level, Marker marker, String message, Object[] arguments, Throwable error) {
        send(CLOCK, level, marker == null ? null : List.of(marker), message, arguments, null, error);
    }

    @Override
    public void log(LoggingEvent event) {
        send(event.getTimeStamp(), event.getLevel(), event.getMarkers(), event.getMessage(), event.getArgumentArray(),
                event.getKeyValuePairs(), event.getThrowable());
    }

    /** The time is in milliseconds since the epoch, or {@link #CLOCK}. */
    private void send(long milliseconds, Level level, List<Marker> markers, String message, Object[] arguments,
            List<KeyValuePair> pairs, Throwable error) {
        Map<String, Object> context = new LinkedHashMap<>();
        context.put("logger", name);
        context.put("thread", Thread.currentThread().getName());
        context.putAll(factory.mdc());
        if (pairs != null) {
            pairs.forEach(pair -> context.put(pair.key, pair.value));
        }
        if (markers != null && !markers.isEmpty()) {
            context.put("markers", markers.toString());
        }
        if (error != null) {
            StringWriter trace = new StringWriter();
            error.printStackTrace(new PrintWriter(trace));
            context.put("exception", trace.toString());
        }
        String text = String.valueOf(MessageFormatter.basicArrayFormat(message, arguments));
        wafermon.sdk.Level wanted = level(level);
        if (milliseconds == CLOCK) {
            factory.sdk().logEvent(wanted, text, context);
        } else {
            factory.sdk().logEvent(1_000 * milliseconds, wanted, text, context);
        }
    }

    private static wafermon.sdk.Level level(Level level) {
        switch (level) {
            case ERROR:
                return wafermon.sdk.Level.ERROR;
            case WARN:
                return wafermon.sdk.Level.WARNING;
            case INFO:
                return wafermon.sdk.Level.INFO;
            default:
                return wafermon.sdk.Level.DEBUG;
        }
    }
}
