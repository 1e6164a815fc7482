package wafermon.sdk.slf4j;

import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.ILoggerFactory;
import org.slf4j.Logger;
import org.slf4j.event.Level;
import org.slf4j.spi.MDCAdapter;
import wafermon.sdk.MonitoringSDK;

/** Makes loggers, and has the SDK that they all use. */
public final class MonitoringLoggerFactory implements ILoggerFactory {
    private static final String SERVICE = "java";

    private final Map<String, Logger> loggers = new ConcurrentHashMap<>();
    private final MDCAdapter mdc;
    private volatile Level level = wantedLevel();
    private volatile MonitoringSDK sdk;

    MonitoringLoggerFactory(MDCAdapter mdc) {
        this.mdc = mdc;
    }

    /** That of {@code -Dwafermon.log.level}, else of {@code WAFERMON_LOG_LEVEL}, else info. */
    private static Level wantedLevel() {
        String wanted = System.getProperty("wafermon.log.level", System.getenv().getOrDefault("WAFERMON_LOG_LEVEL", ""));
        try {
            return wanted.isEmpty() ? Level.INFO : Level.valueOf(wanted.toUpperCase(Locale.ROOT));
        } catch (IllegalArgumentException error) {
            System.err.println("wafermon: unknown log level: '" + wanted + "'; use trace, debug, info, warn or error");
            return Level.INFO;
        }
    }

    @Override
    public Logger getLogger(String name) {
        return loggers.computeIfAbsent(name, same -> new MonitoringLogger(same, this));
    }

    /**
     * From now on, let all loggers use this SDK, in whose spans events then are.
     *
     * @param sdk a program's own
     */
    public void use(MonitoringSDK sdk) {
        this.sdk = sdk;
    }

    /**
     * From now on, leave out what is less important.
     *
     * @param level the least important level that is sent; {@code INFO} at the start, or that of the system property
     *     {@code wafermon.log.level} or the variable {@code WAFERMON_LOG_LEVEL}
     */
    public void setLevel(Level level) {
        this.level = level;
    }

    boolean takes(Level asked) {
        return asked.toInt() >= level.toInt();
    }

    Map<String, String> mdc() {
        Map<String, String> copy = mdc.getCopyOfContextMap();
        return copy == null ? Map.of() : copy;
    }

    /** The SDK in use; one of the environment, opened now, where none was given. */
    MonitoringSDK sdk() {
        return sdk == null ? opened() : sdk;
    }

    private synchronized MonitoringSDK opened() {
        if (sdk == null) {
            try {
                sdk = MonitoringSDK.open(null);
            } catch (IllegalArgumentException error) {
                System.err.println("wafermon: no service: set WAFERMON_SERVICE; using '" + SERVICE + "'");
                sdk = MonitoringSDK.open(SERVICE);
            }
        }
        return sdk;
    }
}
