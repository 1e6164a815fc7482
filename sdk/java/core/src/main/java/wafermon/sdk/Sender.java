package wafermon.sdk;

import java.io.IOException;
import java.security.SecureRandom;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import javax.net.ssl.SSLContext;

/**
 * What becomes of the messages: a ring that calls put them into, and the thread that brings them on.
 *
 * <p>The thread is started by the first call. It looks at the ring every few milliseconds while there is work, and is
 * woken by a call only after it has gone to sleep, since waking costs more than the call itself. Nothing that it does
 * with a socket blocks; connecting, which might, is done in a thread of its own. Times are milliseconds since the SDK
 * was opened.
 */
final class Sender {
    /** Bytes that may wait to be sent; as many again may be sent and unacknowledged. */
    private static final int MOST_BYTES = 4 << 20;
    /** A burst at the very start may wait so long for the first welcome before it spills. */
    private static final long GRACE = 100;
    /** How often a busy sender looks at everything; so often in vain, and it dozes while acks are to come, or sleeps. */
    private static final long TICK = 5;
    private static final int IDLE_TICKS = 10;
    private static final long DOZE = 50;
    private static final long SLEEP = 1_000;
    /** A ring as full as the first makes a call wake the sender; as the second, wait a little for it. */
    private static final long BUSY = Ring.CAPACITY / 4;
    private static final long LONG = Ring.CAPACITY / 2;
    private static final long NAP_NANOS = 50_000;
    private static final long MOST_NAPS_NANOS = 600_000;
    /**
     * How long a call waits for room before it drops its message: the sender is stuck in a write to a dead disk, or other
     * programs leave it no processor. The calls after it wait the second, until the sender moves.
     */
    private static final long STUCK = 2_000;
    private static final long STILL_STUCK = 5;
    /** The sender takes so many messages before it looks at the sockets again. */
    private static final int PORTION = 1_024;
    private static final long STATS_EVERY = 5_000;

    final Address address;
    /** Null where the address is not tls. */
    final SSLContext tls;
    final SecureRandom random = new SecureRandom();
    final ReentrantLock lock = new ReentrantLock();
    final Stats.Counts counts = new Stats.Counts();
    /** Null without compression, and once a frame was refused. */
    Frames compress;
    /** Encodes what is called. */
    final Messages messages;
    /** Trace and span outside of all spans. */
    volatile Scope root;
    /** Closed: nothing is taken, all is delivered or left. */
    volatile boolean over;

    private final Settings settings;
    private final long began = System.nanoTime();
    private final Ring ring = new Ring();
    private final AtomicLong refused = new AtomicLong();
    private final Set<String> said = new HashSet<>();
    private final ArrayDeque<Message> waiting = new ArrayDeque<>();
    private final Spool spool;
    private final Stream main;
    /** Of a spill file that is being sent. */
    private Stream courier;
    private volatile Thread thread;
    /** Calls are refused; what was called before is still on its way. */
    private volatile boolean closing;
    private Thread hook;
    /** A ring that weighs more makes a call do more than put its message there. */
    private volatile long mark;
    /** Messages that the ring had passed on when it was found stuck. */
    private volatile long stuck = -1;
    private volatile long closeAt = Stream.NEVER;
    private long started;
    private long waitingBytes;
    private long reported;
    private int quiet;
    private long statsDue = Stream.NEVER;
    private long statsCalled;
    /** The seq of the closing stats line, as long as it is the last one. */
    private long finalSeq = -1;

    Sender(Settings settings) {
        this.settings = settings;
        this.messages = new Messages(settings);
        this.root = settings.root;
        this.address = settings.address(this::say);
        this.tls = address.scheme.equals("tls") ? Tls.context(settings, this::say) : null;
        this.compress = settings.compress(this::say) ? new Frames() : null;
        this.over = settings.disabled();
        this.closing = over;
        this.spool = new Spool(settings.spillDir, settings.service, this::id);
        try {
            this.main = new Stream(this, id(), null);
        } catch (IOException error) {
            throw new IllegalStateException(error);  // it reads no file
        }
    }

    long now() {
        return (System.nanoTime() - began) / 1_000_000;
    }

    /** 16 hex digits from the system's random source. */
    String id() {
        String hex = Long.toHexString(random.nextLong());
        return "0".repeat(16 - hex.length()) + hex;
    }

    /** One line on stderr; what comes before its colon is said once. */
    void say(String text) {
        if (said.add(text.split(":", 2)[0])) {
            System.err.println("wafermon: " + text);
        }
    }

    void refused(String code, String detail) {
        if (code.equals("bad_frame")) {
            compress = null;
            say("the sidecar takes no compressed frames: " + code + " " + detail + "; going on without compression");
        } else {
            say("the sidecar refuses: " + code + " " + detail);
        }
    }

    /** A thread that runs it; null where the system has no more threads, for now. */
    static Thread inThread(String name, Runnable target) {
        try {
            Thread thread = new Thread(null, target, name, 0, false);
            thread.setDaemon(true);
            thread.start();
            return thread;
        } catch (OutOfMemoryError error) {
            return null;
        }
    }

    static void pause(long milliseconds) {
        LockSupport.parkNanos(milliseconds * 1_000_000);
    }

    // ---- the calls' side ----

    void put(Message message) {
        if (closing) {
            refused.incrementAndGet();
            return;
        }
        long weighs = ring.offer(message);
        if (weighs < 0) {
            weighs = offerAgain(message);
        }
        if (weighs > mark) {
            attend(weighs);
        }
    }

    /** The rare end of a call: the sender sleeps or has not begun, or the ring is full, or all is over. */
    private void attend(long weighs) {
        if (over) {
            refuseRest();
            return;
        }
        rouse();
        long giveUp = System.nanoTime() + MOST_NAPS_NANOS;
        while (weighs > LONG && ring.weight() > LONG && System.nanoTime() < giveUp) {
            LockSupport.parkNanos(NAP_NANOS);
        }
    }

    private long offerAgain(Message message) {
        long passed = ring.added() - ring.size();
        long giveUp = now() + (stuck == passed ? STILL_STUCK : STUCK);
        long weighs = -1;
        while (weighs < 0 && now() < giveUp && !over) {
            rouse();
            LockSupport.parkNanos(NAP_NANOS);
            weighs = ring.offer(message);
        }
        if (weighs < 0) {
            refused.incrementAndGet();
            stuck = ring.added() - ring.size() == passed ? passed : -1;
        }
        return weighs;
    }

    /** Calls that came while the last messages were given away. */
    private void refuseRest() {
        lock.lock();
        try {
            while (over && ring.poll() != null) {
                counts.dropped++;
            }
        } finally {
            lock.unlock();
        }
    }

    void rouse() {
        mark = LONG;
        if (thread == null) {
            start();
        }
        LockSupport.unpark(thread);
    }

    private void start() {
        lock.lock();
        try {
            if (thread == null && !over) {
                started = now();
                thread = inThread("wafermon-sender", this::run);
            }
            if (thread != null && hook == null) {
                hook = new Thread(null, () -> close(2_000), "wafermon-exit", 0, false);
                Runtime.getRuntime().addShutdownHook(hook);
            }
        } catch (IllegalStateException error) {
            hook = null;  // the exit has begun
        } finally {
            lock.unlock();
        }
    }

    /** Keep the sender at work until then, for so long at most; whether it got there. */
    private boolean until(BooleanSupplier settled, long timeout) {
        long deadline = now() + timeout;
        while (!settled.getAsBoolean()) {
            if (over || now() >= deadline || Thread.currentThread().isInterrupted()) {
                return false;
            }
            rouse();
            pause(1);
        }
        return true;
    }

    boolean flush(long timeout) {
        return until(() -> ring.isEmpty() && kept() == 0, timeout);
    }

    Stats stats() {
        until(ring::isEmpty, 500);  // what was called before is where it belongs
        refuseRest();
        lock.lock();
        try {
            long waits = ring.size() + kept();
            String state = full() && !over ? "overflow" : main.up ? "connected" : "disconnected";
            return new Stats(state, called(), dropped(), waits, Math.max(0, main.welcomes - 1), counts);
        } finally {
            lock.unlock();
        }
    }

    /** Begin to close; the thread does the rest. */
    void beginClose(long timeout) {
        lock.lock();
        try {
            closing = true;
            closeAt = Math.min(closeAt, now() + timeout);
            over |= thread == null && ring.isEmpty();
        } finally {
            lock.unlock();
        }
        if (!over) {
            rouse();
        }
    }

    void close(long timeout) {
        beginClose(timeout);
        Thread running = thread;
        boolean interrupted = false;
        for (long giveUp = now() + timeout + 1_000; running != null && running.isAlive() && now() < giveUp; ) {
            try {
                running.join(Math.max(1, giveUp - now()));
            } catch (InterruptedException error) {
                interrupted = true;  // what is in memory must get to the disk all the same
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    // ---- the sender's side ----

    private void run() {
        List<Link> farewells = null;
        while (farewells == null) {
            try {
                boolean moved;
                lock.lock();
                try {
                    moved = tick(now());
                    farewells = finish(now());
                } finally {
                    lock.unlock();
                }
                if (farewells == null) {
                    rest(moved);
                }
            } catch (RuntimeException | Error error) {  // the sender must live: without it nothing is delivered or spilled
                say("internal error: " + error);
                pause(100);
            }
        }
        for (Link link : farewells) {
            Stream.farewell(link, this, Math.min(closeAt, now() + 500));
        }
        forgetHook();
    }

    private void forgetHook() {
        try {
            if (hook != null) {
                Runtime.getRuntime().removeShutdownHook(hook);
            }
        } catch (IllegalStateException error) {
            // it is running
        }
    }

    /** One look at everything; whether something moved. */
    private boolean tick(long now) {
        Thread.interrupted();  // an interrupt would close files and sockets
        main.connect(now);
        if (main.up && dropped() > reported) {
            long count = dropped() - reported;
            reported = dropped();
            counts.reports++;
            Map<String, Object> context = Map.of("kind", "dropped", "count", count);
            main.number(messages.event(Messages.clock(), root, Level.WARNING, count + " messages dropped", context));
        }
        advance();
        boolean moved = take(now);
        report(now);
        moved |= main.pump(now);
        takeFile();
        return deliverFile(now) || moved;
    }

    /** From the ring to where there is room: the window, the buffer, a spill file. */
    private boolean take(long now) {
        int most = PORTION;
        if (main.welcomes == 0 && main.failures == 0 && now < started + GRACE && closeAt == Stream.NEVER) {
            most = Math.min(most, settings.buffer - waiting.size());
        }
        List<Message> overflow = new ArrayList<>();
        int taken = 0;
        for (Message body; taken < most && (body = ring.poll()) != null; taken++) {
            if (full()) {
                overflow.add(body);
            } else {
                waiting.add(body);
                waitingBytes += body.size;
                advance();
            }
        }
        spilled(overflow.isEmpty() ? 0 : spool.write(overflow, now), overflow.size());
        return taken > 0;
    }

    /** Number what waits, as far as the window has room for it. */
    private void advance() {
        while (main.up && !waiting.isEmpty() && main.windowBytes < MOST_BYTES) {
            numberNext();
        }
    }

    private void numberNext() {
        Message body = waiting.poll();
        waitingBytes -= body.size;
        main.number(body);
    }

    private void spilled(int written, int wanted) {
        counts.spilled += written;
        counts.dropped += wanted - written;
    }

    /** While connected, closed spill files are sent one by one, each over a connection of its own. */
    private void takeFile() {
        if (main.up && courier == null) {
            spool.writing = spool.writing && full();
            if (spool.files.size() > (spool.writing ? 1 : 0)) {
                SpillFile file = spool.files.poll();
                try {
                    courier = file.claim() ? new Stream(this, file.client, file) : null;
                } catch (IOException error) {
                    file.leave();  // it can't be read here; perhaps the sidecar can
                }
                if (courier == null) {
                    counts.handedOver += file.count;
                    file.close();
                }
            }
        }
    }

    private boolean deliverFile(long now) {
        if (courier == null) {
            return false;
        }
        if (main.up) {
            courier.connect(now);
        }
        boolean moved = courier.pump(now);
        if (courier.window.isEmpty()) {
            courier.lose();
            courier.file.remove();
            courier = null;
        }
        return moved;
    }

    /** Until the next tick while there is work, else until something happens. */
    private void rest(boolean moved) {
        quiet = moved ? 0 : quiet + 1;
        long pause = TICK;
        if (quiet >= IDLE_TICKS && closeAt == Stream.NEVER) {
            mark = 0;
            pause = main.link != null && kept() > 0 ? DOZE : SLEEP;
            pause = Math.min(pause, Math.max(TICK, Math.min(main.due(), statsDue) - now()));
        } else {
            mark = BUSY;
        }
        // a call that came before it could see the mark did not ring
        boolean more = mark == 0 ? !ring.isEmpty() : ring.weight() > BUSY;
        LockSupport.parkNanos(more ? NAP_NANOS : pause * 1_000_000);
        mark = LONG;
    }

    /** When it is time to close: leave the rest in a spill file; the links to say farewell to. Else null. */
    private List<Link> finish(long now) {
        if (closeAt == Stream.NEVER) {
            return null;
        }
        if (main.up && main.stats && ring.isEmpty() && waiting.isEmpty()) {
            writeFinalStats();
        }
        boolean more = !ring.isEmpty() || !main.window.isEmpty() || kept() > 0;
        if (more && (main.up || main.failures == 0) && now < closeAt) {
            return null;
        }
        over = true;
        mark = 0;
        List<Link> farewells = new ArrayList<>();
        for (Stream stream : courier == null ? List.of(main) : List.of(main, courier)) {
            if (stream.link != null) {
                farewells.add(stream.link);
            }
            stream.link = null;
            stream.up = false;
        }
        for (Message body; (body = ring.poll()) != null; ) {
            waiting.add(body);
        }
        while (!waiting.isEmpty()) {
            numberNext();
        }
        if (main.stats || main.welcomes == 0) {
            writeFinalStats();
        }
        leave();
        if (compress != null) {
            compress.end();
        }
        return farewells;
    }

    private void leave() {
        int wanted = (int) main.windowCount;
        int left = main.window.isEmpty() ? 0 : spool.leave(main.client, new ArrayList<>(main.window));
        spilled(left, wanted);
        main.window.clear();
        main.windowCount = 0;
        counts.handedOver += left + kept();
        spool.files.forEach(SpillFile::leave);
        spool.files.clear();
        if (courier != null) {
            courier.file.leave();
            courier = null;
        }
    }

    // ---- figures ----

    /** Messages that the sender has taken and not yet settled. */
    private long kept() {
        lock.lock();
        try {
            long inStreams = main.windowCount + (courier == null ? 0 : courier.windowCount);
            return waiting.size() + inStreams + spool.files.stream().mapToLong(file -> file.count).sum();
        } finally {
            lock.unlock();
        }
    }

    private long called() {
        return ring.added() + refused.get() + counts.reports;
    }

    private long dropped() {
        return counts.dropped + refused.get();
    }

    private boolean full() {
        return waiting.size() >= settings.buffer || waitingBytes + Json.LIMIT >= MOST_BYTES;
    }

    byte[] hello(String client) {
        return messages.hello(client, settings.token, compress != null);
    }

    /** A stats line, where the sidecar takes them: within ten seconds after the last message, whatever comes. */
    private void report(long now) {
        if (main.up && main.stats && closeAt == Stream.NEVER) {
            if (statsDue == Stream.NEVER && called() != statsCalled) {
                statsDue = now + STATS_EVERY;
            }
            if (now >= statsDue) {
                long unsent = ring.size() + waiting.size();
                statsCalled = unsent == 0 ? called() : -1;
                statsDue = Stream.NEVER;
                main.number(messages.stats(called(), dropped(), unsent, main.seq, spool.streams, false));
            }
        }
    }

    private void writeFinalStats() {
        if (called() > 0 && main.seq != finalSeq) {
            main.number(messages.stats(called(), dropped(), 0, main.seq, spool.streams, true));
            finalSeq = main.seq;
        }
    }
}
