package wafermon.sdk.logging;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import wafermon.sdk.MonitoringSDK;
import wafermon.sdk.Span;
import wafermon.sidecar.FakeSidecar;

class MonitoringHandlerTest {
    private final Logger logger = Logger.getLogger("lot.loader");
    private FakeSidecar sidecar;
    private MonitoringSDK sdk;
    private MonitoringHandler handler;

    @BeforeEach
    void open(@TempDir Path spill) throws Exception {
        sidecar = new FakeSidecar();
        sdk = MonitoringSDK.builder("jul").url(sidecar.url()).spillDir(spill.toString()).build();
        handler = new MonitoringHandler(sdk);
        logger.setUseParentHandlers(false);
        logger.setLevel(Level.ALL);
        logger.addHandler(handler);
    }

    @AfterEach
    void close() throws Exception {
        logger.removeHandler(handler);
        sdk.close();
        sidecar.close();
    }

    @Test
    void recordsAreEvents() {
        logger.log(Level.WARNING, "{0} of {1} rows", new Object[] {3, 5});
        assertTrue(sdk.flush());
        String line = sidecar.lines().get(0);
        assertTrue(line.contains("\"level\":\"warning\",\"message\":\"3 of 5 rows\""), line);
        assertTrue(line.contains("\"context\":{\"logger\":\"lot.loader\",\"class\":\"wafermon.sdk.logging.MonitoringHandlerTest\""
                + ",\"method\":\"recordsAreEvents\"}"), line);
    }

    @Test
    void levelsAreWhatTheyMean() {
        for (Level level : new Level[] {Level.FINEST, Level.FINE, Level.CONFIG, Level.INFO, Level.WARNING, Level.SEVERE}) {
            logger.log(level, "m");
        }
        assertTrue(sdk.flush());
        assertEquals(List.of("debug", "debug", "debug", "info", "warning", "error"), sidecar.texts("level"));
        handler.setLevel(Level.SEVERE);
        logger.info("left out");
        assertTrue(sdk.flush());
        assertEquals(6, sidecar.lines().size());
    }

    @Test
    void aRecordKeepsItsTime() {
        LogRecord record = new LogRecord(Level.INFO, "earlier");
        record.setInstant(Instant.ofEpochSecond(1_700_000_000, 123_456_789));
        handler.publish(record);
        assertTrue(sdk.flush());
        assertTrue(sidecar.lines().get(0).contains("\"ts\":1700000000123456,"), sidecar.lines().get(0));
    }

    @Test
    void spanAndExceptionGoAlong() {
        try (Span span = sdk.span("load")) {
            logger.log(Level.SEVERE, "failed", new IllegalStateException("why"));
            assertTrue(sdk.flush());
            String line = sidecar.lines().get(1);
            assertTrue(line.contains("\"span_id\":\"" + span.id() + "\""), line);
            assertTrue(line.contains("\"exception\":\"java.lang.IllegalStateException: why\\n\\tat "), line);
        }
    }
}
