import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Map;
import java.util.logging.FileHandler;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;
import java.util.stream.Stream;
import wafermon.sdk.Level;
import wafermon.sdk.MonitoringSDK;
import wafermon.sdk.Stats;

/**
 * What a call costs, beside other loggers to a file in the same run: {@code java -jar build/bench.jar [SECONDS]}
 *
 * <p>Each way gets the same four-key context at 5,000 calls per second from one thread, timed call by call, after as many
 * that are not timed. The sidecar is a process of its own that welcomes and acknowledges, or one that never answers, or
 * none at all. Logback is measured where it is on the class path, see README.md.
 */
public final class Bench {
    private static final int RATE = 5_000;
    private static final Map<String, Object> CONTEXT = Map.of("file", "lot-4711.dat", "rows", 1250, "ratio", 0.75, "ok", true);

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 2 && arguments[0].equals("serve")) {
            serve(arguments[1].equals("up"));
            return;
        }
        int calls = (int) (RATE * (arguments.length > 0 ? Double.parseDouble(arguments[0]) : 3));
        Path folder = Files.createTempDirectory("wafermon-bench");
        try {
            System.setProperty("bench.file", folder.resolve("logback.log").toString());
            utilLogging(folder, calls);
            slf4j(calls);
            for (String sidecar : new String[] {"up", "absent", "hung"}) {
                sdk(sidecar, folder, calls);
            }
        } finally {
            try (Stream<Path> files = Files.walk(folder)) {
                files.sorted(Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
            }
        }
    }

    private static void utilLogging(Path folder, int calls) throws Exception {
        Logger logger = Logger.getLogger("bench");
        logger.setUseParentHandlers(false);
        FileHandler file = new FileHandler(folder.resolve("jul.log").toString());
        file.setFormatter(new SimpleFormatter());
        logger.addHandler(file);
        Runnable call = () -> logger.log(java.util.logging.Level.INFO, "file read file={0} rows={1} ratio={2} ok={3}",
                new Object[] {"lot-4711.dat", 1250, 0.75, true});
        paced(call, calls);
        report("java.util.logging FileHandler", paced(call, calls));
        file.close();
    }

    /** By reflection, since neither is needed here: Logback's configuration is bench/logback.xml. */
    private static void slf4j(int calls) throws Exception {
        Class<?> factory;
        try {
            factory = Class.forName("org.slf4j.LoggerFactory");
            Class.forName("ch.qos.logback.classic.LoggerContext");
        } catch (ClassNotFoundException error) {
            System.out.println("Logback is not on the class path");
            return;
        }
        Object logger = factory.getMethod("getLogger", String.class).invoke(null, "bench");
        java.lang.invoke.MethodHandle info = java.lang.invoke.MethodHandles.publicLookup().bind(logger, "info",
                java.lang.invoke.MethodType.methodType(void.class, String.class, Object[].class));
        Runnable call = () -> {
            try {
                info.invoke("file read file={} rows={} ratio={} ok={}", new Object[] {"lot-4711.dat", 1250, 0.75, true});
            } catch (Throwable error) {
                throw new IllegalStateException(error);
            }
        };
        paced(call, calls);
        report("Logback async to a file", paced(call, calls));
    }

    private static void sdk(String sidecar, Path folder, int calls) throws Exception {
        Process server = null;
        String url = "tcp://127.0.0.1:1";
        if (!sidecar.equals("absent")) {
            server = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-cp",
                    System.getProperty("java.class.path"), "Bench", "serve", sidecar)
                    .redirectError(ProcessBuilder.Redirect.INHERIT).start();
            byte[] port = new byte[16];
            int length = server.getInputStream().read(port);
            url = "tcp://127.0.0.1:" + new String(port, 0, length, StandardCharsets.US_ASCII).trim();
        }
        try (MonitoringSDK sdk = MonitoringSDK.builder("bench").url(url).spillDir(folder.resolve(sidecar).toString()).build()) {
            Runnable call = () -> sdk.logEvent(Level.INFO, "file read", CONTEXT);
            paced(call, calls);
            report("logEvent, sidecar " + sidecar, paced(call, calls));
            report("  10,000 as fast as it can", tight(call, 10_000));
            Stats stats = sdk.getStats();
            System.out.printf("  %s%n", stats);
        } finally {
            if (server != null) {
                server.destroyForcibly();
            }
        }
    }

    private static long[] paced(Runnable call, int count) {
        long[] took = new long[count];
        long due = System.nanoTime();
        for (int i = 0; i < count; i++) {
            while (System.nanoTime() < due) {
                java.util.concurrent.locks.LockSupport.parkNanos(50_000);
            }
            due += 1_000_000_000 / RATE;
            long before = System.nanoTime();
            call.run();
            took[i] = System.nanoTime() - before;
        }
        return took;
    }

    private static long[] tight(Runnable call, int count) {
        long[] took = new long[count];
        for (int i = 0; i < count; i++) {
            long before = System.nanoTime();
            call.run();
            took[i] = System.nanoTime() - before;
        }
        return took;
    }

    private static void report(String name, long[] took) {
        Arrays.sort(took);
        System.out.printf("%-34s p50 %6.2f  p99 %7.2f  p99.9 %8.2f  max %9.1f us%n", name, took[took.length / 2] / 1e3,
                took[(int) (took.length * 0.99)] / 1e3, took[(int) (took.length * 0.999)] / 1e3, took[took.length - 1] / 1e3);
    }

    /** A sidecar just good enough to be fast: every client's lines are counted and acknowledged. */
    private static void serve(boolean answers) throws Exception {
        try (ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            System.out.println(listener.getLocalPort());
            while (true) {
                Socket socket = listener.accept();
                Thread thread = new Thread(() -> talk(socket, answers));
                thread.setDaemon(true);
                thread.start();
            }
        }
    }

    private static void talk(Socket socket, boolean answers) {
        try (socket) {
            InputStream in = socket.getInputStream();
            OutputStream out = socket.getOutputStream();
            byte[] data = new byte[1 << 20];
            in.read(data);
            if (!answers) {
                Thread.sleep(3_600_000);
            }
            out.write("{\"type\":\"welcome\",\"v\":2,\"sidecar\":\"bench\",\"acked\":0}\n".getBytes(StandardCharsets.US_ASCII));
            long seq = 0;
            for (int size; (size = in.read(data)) > 0; ) {
                for (int i = 0; i < size; i++) {
                    seq += data[i] == '\n' ? 1 : 0;
                }
                out.write(("{\"type\":\"ack\",\"seq\":" + seq + "}\n").getBytes(StandardCharsets.US_ASCII));
            }
        } catch (java.io.IOException | InterruptedException error) {
            // the client has gone
        }
    }
}
