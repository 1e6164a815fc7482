package wafermon.sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.reflect.Method;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import wafermon.sidecar.FakeSidecar;

class ThreadsTest {
    @TempDir
    Path spill;

    private MonitoringSDK open(FakeSidecar sidecar) {
        return MonitoringSDK.builder("threads").url(sidecar.url()).spillDir(spill.toString()).build();
    }

    private static void assertAddsUp(Stats stats) {
        assertEquals(stats.called, stats.acked + stats.rejected + stats.dropped + stats.waiting + stats.handedOver,
                stats.toString());
    }

    private void logFrom(ExecutorService executor, int threads, int each) throws Exception {
        try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
            CountDownLatch begin = new CountDownLatch(1);
            List<Future<?>> running = new ArrayList<>();
            for (int thread = 0; thread < threads; thread++) {
                String name = "t" + thread;
                running.add(executor.submit(() -> {
                    begin.await();
                    for (int i = 0; i < each; i++) {
                        sdk.logEvent(Level.INFO, name, Map.of("i", i));
                    }
                    return null;
                }));
            }
            begin.countDown();
            for (Future<?> one : running) {
                one.get();
            }
            FakeSidecar.await(sdk::flush);
            Stats stats = sdk.getStats();
            assertAddsUp(stats);
            assertEquals((long) threads * each, stats.acked);
            assertEquals(0, stats.dropped);
            Map<String, Long> counts = sidecar.lines().stream().map(line -> line.replaceAll(".*\"message\":\"(t[0-9]+)\".*", "$1"))
                    .collect(Collectors.groupingBy(name -> name, Collectors.counting()));
            assertEquals(threads, counts.size());
            assertTrue(counts.values().stream().allMatch(count -> count == each), counts.toString());
            assertEquals((long) threads * each, sidecar.lines().stream().distinct().count(), "a message came twice");
        } finally {
            executor.shutdown();
        }
    }

    @Test
    void manyThreadsLoseNothing() throws Exception {
        logFrom(Executors.newFixedThreadPool(16), 16, 3_000);
    }

    @Test
    void manyVirtualThreadsLoseNothing() throws Exception {
        Method virtual = Arrays.stream(Executors.class.getMethods())
                .filter(method -> method.getName().equals("newVirtualThreadPerTaskExecutor")).findFirst().orElse(null);
        assumeTrue(virtual != null, "virtual threads came with Java 21");
        logFrom((ExecutorService) virtual.invoke(null), 2_000, 20);
    }

    @Test
    void closeAmongCallsAddsUp() throws Exception {
        for (int round = 0; round < 20; round++) {
            try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
                List<Thread> threads = new ArrayList<>();
                for (int thread = 0; thread < 4; thread++) {
                    threads.add(new Thread(() -> {
                        for (int i = 0; i < 500; i++) {
                            sdk.logMetric("n", i);
                        }
                    }));
                }
                threads.forEach(Thread::start);
                sdk.logEvent(Level.INFO, "begun");
                sdk.close();
                for (Thread thread : threads) {
                    thread.join();
                }
                Stats stats = sdk.getStats();
                assertAddsUp(stats);
                // the SDK's own report of what came too late is one more
                long reports = sidecar.lines().stream().filter(line -> line.contains("\"kind\":\"dropped\"")).count();
                assertEquals(2_001 + reports, stats.called);
                assertEquals(0, stats.waiting);
                assertEquals(stats.acked, sidecar.lines().size());
            }
        }
    }

    @Test
    void aThreadHasItsOwnSpanAndWrapCarriesOne() throws Exception {
        ExecutorService executor = Executors.newSingleThreadExecutor();
        try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
            String outer;
            try (Span span = sdk.span("outer", "job-1", null)) {
                outer = span.id();
                executor.submit(() -> sdk.logEvent(Level.INFO, "alone")).get();
                executor.submit(sdk.wrap(() -> sdk.logEvent(Level.INFO, "carried"))).get();
                Callable<String> inner = sdk.wrap(() -> {
                    try (Span within = sdk.span("inner")) {
                        return within.id();
                    }
                });
                assertEquals(16, executor.submit(inner).get().length());
                executor.submit(() -> sdk.logEvent(Level.INFO, "alone again")).get();
            }
            Runnable late = sdk.wrap((Runnable) () -> sdk.logEvent(Level.INFO, "after"));
            late.run();
            assertTrue(sdk.flush());
            String inside = "\"trace_id\":\"job-1\",\"span_id\":\"" + outer + "\"";
            for (String line : sidecar.lines()) {
                boolean within = line.contains("\"carried\"") || line.contains("\"outer\"");
                assertEquals(within, line.contains(inside), line);
                assertEquals(line.contains("\"inner\""), line.contains("\"parent_id\":\"" + outer + "\""), line);
            }
            assertEquals(List.of("alone", "carried", "alone again", "after"), sidecar.texts("message"));
        } finally {
            executor.shutdown();
        }
    }

    @Test
    void aSpanThatEndedElsewhereIsCurrentNowhere() throws Exception {
        try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
            Span span = sdk.span("ends elsewhere");
            Thread other = new Thread(span::close);
            other.start();
            other.join();
            sdk.logEvent(Level.INFO, "outside");
            span.close();
            assertThrows(IllegalArgumentException.class, () -> sdk.endSpan(span.id()));
            assertTrue(sdk.flush());
            assertEquals(3, sidecar.lines().size());
            assertFalse(sidecar.lines().get(2).contains("span_id"), sidecar.lines().get(2));
        }
    }

    @Test
    void aTaskThatThrowsLeavesItsSpan() throws Exception {
        try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
            Runnable failing;
            try (Span span = sdk.span("s")) {
                failing = sdk.wrap((Runnable) () -> {
                    throw new IllegalStateException("as it should");
                });
                span.error(new IllegalStateException("why")).tag("rows", 3);
            }
            assertThrows(IllegalStateException.class, failing::run);
            sdk.logEvent(Level.INFO, "outside");
            assertTrue(sdk.flush());
            String end = sidecar.lines().get(1);
            assertTrue(end.contains("\"status\":\"error\""), end);
            assertTrue(end.contains("\"tags\":{\"error\":\"java.lang.IllegalStateException: why\",\"rows\":3}"), end);
            assertFalse(sidecar.lines().get(2).contains("span_id"));
        }
    }

    @Test
    void interruptedThreadsLoseNothing() throws Exception {
        try (FakeSidecar sidecar = new FakeSidecar(); MonitoringSDK sdk = open(sidecar)) {
            boolean[] stillInterrupted = new boolean[1];
            Thread caller = new Thread(() -> {
                Thread.currentThread().interrupt();
                for (int i = 0; i < 1_000; i++) {
                    sdk.logEvent(Level.INFO, "m" + i);
                }
                sdk.getStats();
                assertFalse(sdk.flush());
                sdk.close();
                stillInterrupted[0] = Thread.currentThread().isInterrupted();
            });
            caller.start();
            caller.join();
            assertTrue(stillInterrupted[0]);
            assertEquals(1_000, sdk.getStats().acked, sdk.getStats().toString());
            assertEquals(1_000, sidecar.lines().size());
        }
    }

    @Test
    void oneThatIsForgottenIsClosed() throws Exception {
        try (FakeSidecar sidecar = new FakeSidecar()) {
            forget(sidecar);
            FakeSidecar.await(() -> {
                System.gc();
                return Thread.getAllStackTraces().keySet().stream().noneMatch(ThreadsTest::sends);
            });
            assertEquals(List.of("forgotten"), sidecar.texts("message"));
        }
    }

    private void forget(FakeSidecar sidecar) {
        MonitoringSDK sdk = open(sidecar);
        sdk.logEvent(Level.INFO, "forgotten");
    }

    private static boolean sends(Thread thread) {
        return thread.getName().equals("wafermon-sender");
    }
}
