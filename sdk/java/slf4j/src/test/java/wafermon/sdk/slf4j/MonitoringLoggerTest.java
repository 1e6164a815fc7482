package wafermon.sdk.slf4j;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;
import org.slf4j.MarkerFactory;
import org.slf4j.event.Level;
import wafermon.sdk.MonitoringSDK;
import wafermon.sdk.Span;
import wafermon.sidecar.FakeSidecar;

/** Through SLF4J as a program uses it: the provider is found by its service file. */
class MonitoringLoggerTest {
    private final Logger logger = LoggerFactory.getLogger("lot.parser");
    private final MonitoringLoggerFactory factory = (MonitoringLoggerFactory) LoggerFactory.getILoggerFactory();
    private FakeSidecar sidecar;
    private MonitoringSDK sdk;

    @BeforeEach
    void open(@TempDir Path spill) throws Exception {
        sidecar = new FakeSidecar();
        sdk = MonitoringSDK.builder("slf4j").url(sidecar.url()).spillDir(spill.toString()).build();
        factory.use(sdk);
    }

    @AfterEach
    void close() throws Exception {
        factory.setLevel(Level.INFO);
        sdk.close();
        sidecar.close();
    }

    private String only() {
        assertTrue(sdk.flush());
        assertEquals(1, sidecar.lines().size(), sidecar.lines().toString());
        return sidecar.lines().get(0);
    }

    @Test
    void argumentsAreFilledIn() {
        logger.warn("{} of {} rows in {}", 3, 5, "a.dat");
        String line = only();
        assertTrue(line.contains("\"level\":\"warning\",\"message\":\"3 of 5 rows in a.dat\""), line);
        assertTrue(line.contains("\"context\":{\"logger\":\"lot.parser\",\"thread\":\"main\"}"), line);
    }

    @Test
    void levelsAreKeptAndTheLessImportantLeftOut() {
        logger.trace("t");
        logger.debug("d");
        logger.info("i");
        logger.error("e");
        factory.setLevel(Level.TRACE);
        logger.trace("T");
        assertTrue(sdk.flush());
        assertEquals(List.of("i", "e", "T"), sidecar.texts("message"));
        assertEquals(List.of("info", "error", "debug"), sidecar.texts("level"));
    }

    @Test
    void anExceptionGoesAlong() {
        logger.error("failed: {}", "load", new IllegalStateException("no \"table\""));
        String line = only();
        assertTrue(line.contains("\"message\":\"failed: load\""), line);
        assertTrue(line.contains("\"exception\":\"java.lang.IllegalStateException: no \\\"table\\\"\\n\\tat wafermon.sdk.slf4j."), line);
    }

    @Test
    void pairsMdcAndMarkersJoinTheContext() {
        MDC.put("lot", "L-7");
        try {
            logger.atInfo().addMarker(MarkerFactory.getMarker("AUDIT")).addKeyValue("rows", 12).addKeyValue("ok", true).log("read");
        } finally {
            MDC.clear();
        }
        String line = only();
        assertTrue(line.contains("\"thread\":\"main\",\"lot\":\"L-7\",\"rows\":12,\"ok\":true,\"markers\":\"[AUDIT]\"}"), line);
    }

    @Test
    void eventsAreInTheSpanOfTheirThread() {
        String id;
        try (Span span = sdk.span("load", "job-1", null)) {
            id = span.id();
            logger.info("inside");
        }
        assertTrue(sdk.flush());
        String line = sidecar.lines().get(1);
        assertTrue(line.contains("\"trace_id\":\"job-1\",\"span_id\":\"" + id + "\""), line);
    }

    @Test
    void nullsAreNoTrouble() {
        logger.info(null);
        logger.info("{}", (Object) null);
        assertTrue(sdk.flush());
        assertEquals(List.of("null", "null"), sidecar.texts("message"));
    }
}
