package wafermon.sdk;

import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.Map;

/** How much an event matters. */
public enum Level {
    /** For those who look for a fault. */
    DEBUG,
    /** What happens in normal work. */
    INFO,
    /** Something to look at; work goes on. */
    WARNING,
    /** Something failed. */
    ERROR,
    /** The program can't do its work. */
    CRITICAL;

    private static final Map<String, Level> OTHER_NAMES = Map.of("warn", WARNING, "err", ERROR, "fatal", CRITICAL);

    final byte[] json = (",\"level\":\"" + name().toLowerCase(Locale.ROOT) + '"').getBytes(StandardCharsets.US_ASCII);

    /**
     * The level of this name.
     *
     * @param name {@code debug} {@code info} {@code warning} {@code error} {@code critical} in lower or upper case; also
     *     {@code warn}, {@code err}, {@code fatal} and the numbers 10 to 50 as text, of which what lies between the tens
     *     counts as the lower one
     * @return the level
     * @throws IllegalArgumentException there is no such level
     */
    public static Level of(String name) {
        String lower = String.valueOf(name).toLowerCase(Locale.ROOT);
        for (Level level : values()) {
            if (level.name().equalsIgnoreCase(lower)) {
                return level;
            }
        }
        Level other = lower.matches("[1-4][0-9]|50") ? values()[lower.charAt(0) - '1'] : OTHER_NAMES.get(lower);
        if (other == null) {
            throw new IllegalArgumentException(
                    "unknown level: " + name + "; use debug, info, warning, error or critical");
        }
        return other;
    }
}
