package wafermon.sdk;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Iterator;

/**
 * One client's messages on their way: numbered, sent, and kept until they are acknowledged.
 *
 * <p>The sender calls it under its lock. Times are in milliseconds.
 */
final class Stream {
    static final long NEVER = Long.MAX_VALUE;
    /** Without a byte for so long, a connection that owes a welcome or acks is dead. */
    static final int SILENCE = 5_000;
    private static final int MOST_PAUSE = 30_000;
    private static final int LEAST_PAUSE = 100;
    private static final int CHUNK = 1 << 16;
    private static final int LONGEST_REPLY = 1 << 20;
    private static final int READS = 64;

    final String client;
    /** What is sent and not acknowledged, oldest first. */
    final ArrayDeque<Message> window = new ArrayDeque<>();
    final SpillFile file;
    Link link;
    /** From the welcome on. */
    boolean up;
    /** Whether the sidecar takes stats lines. */
    boolean stats;
    long welcomes;
    long failures;
    long seq;
    long windowBytes;
    /** How many of the window count in the SDK's figures. */
    long windowCount;
    long retryAt;

    private final Sender sender;
    private final byte[] tail;
    private final ArrayDeque<Message> unsent = new ArrayDeque<>();
    private ByteBuffer in = ByteBuffer.allocate(1 << 12);
    private ByteBuffer out = ByteBuffer.allocate(0);
    private boolean granted;
    private boolean dialing;
    private long highestSent;
    private long heard;

    Stream(Sender sender, String client, SpillFile file) throws IOException {
        this.sender = sender;
        this.client = client;
        this.file = file;
        this.tail = Message.tail(client);
        if (file != null) {
            file.read().forEach(this::keep);
        }
    }

    /** Give the message its seq, for ever, and keep it until that is acknowledged. */
    void number(Message message) {
        message.number(tail, seq + 1);
        keep(message);
    }

    private void keep(Message line) {
        heard = window.isEmpty() ? sender.now() : heard;
        seq++;
        window.add(line);
        windowBytes += line.size;
        windowCount += line.counted ? 1 : 0;
        if (up) {
            unsent.add(line);
        }
    }

    /** Begin a connection, if there is none and the last failure is long enough ago. */
    void connect(long now) {
        if (link == null && !dialing && now >= retryAt) {
            dialing = Sender.inThread("wafermon-dialer", this::dial) != null;
            if (!dialing) {
                lose();
            }
        }
    }

    private void dial() {
        Link made = null;
        try {
            made = Link.open(sender.address, sender.tls, SILENCE);
        } catch (IOException | RuntimeException | Error error) {
            // the sidecar is not there, or memory is short: the next attempt comes after a pause
        }
        sender.lock.lock();
        try {
            dialing = false;
            link = made;
            heard = sender.now();
            in.clear();
            out = ByteBuffer.wrap(sender.hello(client));
            if (made == null || sender.over) {
                lose();
            }
        } finally {
            sender.lock.unlock();
        }
        sender.rouse();
    }

    /** Close the connection at once; what is unacknowledged stays for the next one. */
    void lose() {
        if (link != null) {
            link.close();
        }
        link = null;
        up = false;
        unsent.clear();
        long pause = Math.min(MOST_PAUSE, LEAST_PAUSE << Math.min(failures, 10));
        retryAt = sender.now() + (long) (pause * sender.random.nextDouble());
        failures++;
    }

    /** Read what has come, write what the socket takes, and only then judge the connection; whether something moved. */
    boolean pump(long now) {
        if (link == null) {
            return false;
        }
        boolean moved = false;
        boolean alive = true;
        try {
            int count = 1;
            for (int reads = 0; reads < READS && count > 0; reads++) {
                count = link.read(in);
                alive = count >= 0;
                if (count > 0) {
                    heard = now;
                    moved = true;
                    answer();
                }
            }
            moved |= alive && write();
            boolean silent = now - heard > SILENCE && (!window.isEmpty() || !up);
            if (alive && !silent && in.capacity() < LONGEST_REPLY) {
                return moved;
            }
        } catch (IOException | RuntimeException error) {
            // it has broken, or speaks another protocol
        }
        lose();
        return true;
    }

    private void answer() {
        int begin = 0;
        for (int at = 0; at < in.position(); at++) {
            if (in.get(at) == '\n') {
                answer(Reply.parse(new String(in.array(), begin, at - begin, StandardCharsets.UTF_8)));
                begin = at + 1;
            }
        }
        in.flip().position(begin);
        in.compact();
        if (!in.hasRemaining()) {
            ByteBuffer larger = ByteBuffer.allocate(2 * in.capacity());
            in.flip();
            in = larger.put(in);
        }
    }

    private void answer(Reply reply) {
        if (reply.is("ack")) {
            settle(reply.number("seq"));
        } else if (reply.is("welcome") && !up && "2".equals(reply.get("v", "2"))) {
            up = true;
            failures = 0;
            welcomes++;
            stats = reply.features.contains("stats");
            granted = "zlib".equals(reply.get("compress", ""));
            settle(reply.number("acked"));
            unsent.addAll(window);
        } else if (reply.is("error") && reply.get("seq", null) == null) {
            sender.refused(reply.get("code", "?"), reply.get("detail", ""));
        } else if (reply.is("error")) {
            reject(reply.number("seq"));
        }
    }

    private void settle(long acked) {
        while (!window.isEmpty() && window.peek().seq <= acked) {
            sender.counts.acked += settled(window.poll());
        }
    }

    private void reject(long seq) {
        for (Iterator<Message> messages = window.iterator(); messages.hasNext(); ) {
            Message message = messages.next();
            if (message.seq == seq) {
                messages.remove();
                sender.counts.rejected += settled(message);
                return;
            }
        }
    }

    private int settled(Message message) {
        int count = message.counted ? 1 : 0;
        windowBytes -= message.size;
        windowCount -= count;
        return count;
    }

    /** When it wants to be looked at next, if nothing happens. */
    long due() {
        return link == null && !dialing ? retryAt : NEVER;
    }

    private boolean write() throws IOException {
        boolean moved = false;
        while (out.hasRemaining() || !unsent.isEmpty()) {
            if (!out.hasRemaining()) {
                out = chunk();
            }
            int count = link.write(out);
            moved |= count > 0;
            if (out.hasRemaining() || count == 0) {
                break;
            }
        }
        link.flush();
        return moved;
    }

    /** The next lines, or a frame of them; at least one. */
    private ByteBuffer chunk() {
        Frames frames = granted ? sender.compress : null;
        int most = frames == null ? CHUNK : Frames.MOST;
        int bytes = 0;
        int lines = 0;
        for (Iterator<Message> next = unsent.iterator(); next.hasNext(); lines++) {
            int size = next.next().size;
            if (lines > 0 && bytes + size > most) {
                break;
            }
            bytes += size;
        }
        ByteBuffer data = ByteBuffer.allocate(bytes);
        for (int count = lines; count > 0; count--) {
            Message message = unsent.poll();
            data.put(message.bytes, 0, message.size);
            if (message.counted && message.seq > highestSent) {
                sender.counts.sent++;
            } else if (message.counted) {
                sender.counts.resent++;
            }
            highestSent = Math.max(highestSent, message.seq);
        }
        data.flip();
        return frames != null && bytes >= Frames.LEAST ? frames.frame(data, lines) : data;
    }

    /** Say that nothing more comes, read to the end and close: an unread reply would reset the connection. */
    static void farewell(Link link, Sender sender, long deadline) {
        try {
            link.finish();
            ByteBuffer rest = ByteBuffer.allocate(CHUNK);
            for (int count = 0; count >= 0 && sender.now() < deadline; count = link.read(rest.clear())) {
                if (count == 0) {
                    Sender.pause(2);
                }
            }
        } catch (IOException error) {
            // it is gone already
        }
        link.close();
    }
}
