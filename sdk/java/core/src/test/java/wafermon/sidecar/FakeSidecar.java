package wafermon.sidecar;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.net.ServerSocketFactory;

/** A sidecar that keeps each line once and acknowledges it. The conformance suite has one that misbehaves. */
public final class FakeSidecar implements AutoCloseable {
    private static final Pattern TAIL = Pattern.compile(",\"client\":\"([0-9a-f]{16})\",\"seq\":([0-9]+)}$");

    private final ServerSocket listener;
    private final List<String> lines = new ArrayList<>();
    private final Map<String, Long> marks = new HashMap<>();
    private final List<Socket> open = new ArrayList<>();
    private final String scheme;

    /** On a free port of the loopback address. */
    public FakeSidecar() throws IOException {
        this(bind(ServerSocketFactory.getDefault()), "tcp");
    }

    /** With a listener that has all its options. */
    public FakeSidecar(ServerSocket listener, String scheme) {
        this.scheme = scheme;
        this.listener = listener;
        Thread acceptor = new Thread(this::accept, "sidecar");
        acceptor.setDaemon(true);
        acceptor.start();
    }

    public static ServerSocket bind(ServerSocketFactory factory) throws IOException {
        return factory.createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
    }

    public String url() {
        return scheme + "://localhost:" + listener.getLocalPort();
    }

    /** How many connections there were, with those that got no further. */
    public synchronized int connections() {
        return open.size();
    }

    /** The messages that have come, each once, without the ends that number them. */
    public synchronized List<String> lines() {
        return new ArrayList<>(lines);
    }

    /** What is between the quotes of this field in each message that has it. */
    public List<String> texts(String field) {
        Pattern pattern = Pattern.compile('"' + field + "\":\"((?:[^\"\\\\]|\\\\.)*)\"");
        return lines().stream().map(pattern::matcher).filter(Matcher::find).map(found -> found.group(1))
                .collect(Collectors.toList());
    }

    /** Wait for a condition, which has to come true. */
    public static void await(BooleanSupplier condition) throws InterruptedException {
        long giveUp = System.nanoTime() + 30_000_000_000L;
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > giveUp) {
                throw new AssertionError("did not come true within 30 s");
            }
            Thread.sleep(5);
        }
    }

    private void accept() {
        while (!listener.isClosed()) {
            try {
                Socket socket = listener.accept();
                synchronized (this) {
                    open.add(socket);
                }
                Thread thread = new Thread(() -> serve(socket), "sidecar-connection");
                thread.setDaemon(true);
                thread.start();
            } catch (IOException error) {
                return;
            }
        }
    }

    private void serve(Socket socket) {
        try (socket) {
            BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
            OutputStream out = socket.getOutputStream();
            String hello = in.readLine();
            if (hello == null) {
                return;
            }
            String client = hello.replaceAll(".*\"client\":\"([0-9a-f]{16})\".*", "$1");
            reply(out, "{\"v\":2,\"type\":\"welcome\",\"sidecar\":\"fake\",\"acked\":" + mark(client) + ",\"max_line\":65536}");
            for (String line; (line = in.readLine()) != null; ) {
                keep(line);
                if (!in.ready()) {
                    reply(out, "{\"type\":\"ack\",\"seq\":" + mark(client) + "}");
                }
            }
        } catch (IOException error) {
            // the client, or the test, has gone
        }
    }

    private static void reply(OutputStream out, String line) throws IOException {
        out.write((line + "\n").getBytes(StandardCharsets.US_ASCII));
        out.flush();
    }

    private synchronized long mark(String client) {
        return marks.getOrDefault(client, 0L);
    }

    private synchronized void keep(String line) {
        Matcher tail = TAIL.matcher(line);
        if (!tail.find()) {
            throw new AssertionError("no client and seq: " + line);
        }
        long seq = Long.parseLong(tail.group(2));
        if (seq == mark(tail.group(1)) + 1) {
            marks.put(tail.group(1), seq);
            lines.add(line.substring(0, tail.start()));
        } else if (seq > mark(tail.group(1))) {
            throw new AssertionError("a gap before " + line);
        }
    }

    @Override
    public synchronized void close() throws IOException {
        listener.close();
        for (Socket socket : open) {
            socket.close();
        }
    }
}
