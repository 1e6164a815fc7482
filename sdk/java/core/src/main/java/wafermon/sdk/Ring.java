package wafermon.sdk;

import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReferenceArray;

/**
 * Messages from many calling threads for the one sender: bounded in bytes, without locks.
 *
 * <p>A message weighs its bytes, but at least {@link #LEAST}; all together weigh at most {@link #CAPACITY}. So there are
 * never more messages than slots, and a place that was reserved is always free.
 */
final class Ring {
    static final long CAPACITY = 4 << 20;
    private static final int LEAST = 1024;
    private static final int SLOTS = (int) (CAPACITY / LEAST);

    private final AtomicReferenceArray<Message> slots = new AtomicReferenceArray<>(SLOTS);
    private final AtomicLong fill = new AtomicLong();
    private final AtomicLong tail = new AtomicLong();
    private volatile long head;

    /** Add a message; any thread. What the ring weighs then, or -1 where it has no room. */
    long offer(Message message) {
        long weight = weight(message);
        long weighs = fill.addAndGet(weight);
        if (weighs > CAPACITY) {
            fill.addAndGet(-weight);
            return -1;
        }
        slots.lazySet((int) (tail.getAndIncrement() & (SLOTS - 1)), message);
        return weighs;
    }

    /** Take the oldest message; the sender only. Null where there is none, or where its caller is not yet done. */
    Message poll() {
        int slot = (int) (head & (SLOTS - 1));
        Message message = slots.get(slot);
        if (message != null) {
            slots.lazySet(slot, null);
            head++;
            fill.addAndGet(-weight(message));
        }
        return message;
    }

    boolean isEmpty() {
        return tail.get() == head;
    }

    long weight() {
        return fill.get();
    }

    /** How many messages were ever added. */
    long added() {
        return tail.get();
    }

    long size() {
        return tail.get() - head;
    }

    private static long weight(Message message) {
        return Math.max(LEAST, message.bytes.length);
    }
}
