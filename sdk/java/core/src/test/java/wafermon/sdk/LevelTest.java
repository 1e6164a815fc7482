package wafermon.sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

class LevelTest {
    @Test
    void takesTheNamesThatPeopleUse() {
        String[][] names = {
            {"debug", "DEBUG", "10"}, {"info", "INFO", "Info", "20", "25"}, {"warning", "WARNING", "warn", "WARN", "30"},
            {"error", "ERROR", "err", "40"}, {"critical", "CRITICAL", "fatal", "FATAL", "50"}};
        for (Level level : Level.values()) {
            for (String name : names[level.ordinal()]) {
                assertEquals(level, Level.of(name), name);
            }
        }
    }

    @Test
    void refusesWhatIsNone() {
        for (String name : new String[] {"loud", "", " info", "60", "51", "9", null}) {
            assertThrows(IllegalArgumentException.class, () -> Level.of(name), String.valueOf(name));
        }
    }
}
