package wafermon.sdk;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Where an SDK's messages are. When nothing moves, {@code called} = {@code acked} + {@code rejected} + {@code dropped} +
 * {@code waiting} + {@code handedOver}. All but the state are numbers of messages, except {@code reconnects}.
 */
public final class Stats {
    /** {@code connected}, {@code disconnected}, or {@code overflow} while the buffer is full. */
    public final String state;
    /** Calls that were taken. */
    public final long called;
    /** Sent for the first time. */
    public final long sent;
    /** Acknowledged by the sidecar: they are on its disk. */
    public final long acked;
    /** Refused by the sidecar one by one. */
    public final long rejected;
    /** Lost: no room in memory nor on disk, or called after {@code close}. */
    public final long dropped;
    /** Written to spill files. */
    public final long spilled;
    /** Unsent, unacknowledged, or in spill files that are still the SDK's. */
    public final long waiting;
    /** In spill files that the sidecar has taken up, or that {@code close} has left for it. */
    public final long handedOver;
    /** Sent again after a broken connection. */
    public final long resent;
    /** Connections after the first. */
    public final long reconnects;

    Stats(String state, long called, long dropped, long waiting, long reconnects, Counts counts) {
        this.state = state;
        this.called = called;
        this.dropped = dropped;
        this.waiting = waiting;
        this.reconnects = reconnects;
        this.sent = counts.sent;
        this.acked = counts.acked;
        this.rejected = counts.rejected;
        this.spilled = counts.spilled;
        this.handedOver = counts.handedOver;
        this.resent = counts.resent;
    }

    /**
     * The same by the names that all languages use.
     *
     * @return state and counts, in the order of the documentation
     */
    public Map<String, Object> toMap() {
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("state", state);
        map.put("called", called);
        map.put("sent", sent);
        map.put("acked", acked);
        map.put("rejected", rejected);
        map.put("dropped", dropped);
        map.put("spilled", spilled);
        map.put("waiting", waiting);
        map.put("handed_over", handedOver);
        map.put("resent", resent);
        map.put("reconnects", reconnects);
        return map;
    }

    @Override
    public String toString() {
        return toMap().toString();
    }

    /** What the sender counts, under its lock. */
    static final class Counts {
        long sent;
        long acked;
        long rejected;
        long dropped;
        long spilled;
        long handedOver;
        long resent;
        /** The SDK's own reports of what was dropped. */
        long reports;
    }
}
