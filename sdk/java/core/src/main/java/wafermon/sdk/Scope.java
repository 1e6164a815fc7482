package wafermon.sdk;

import java.util.Map;

/** Trace and span in which calls are made, also as the JSON that goes into their lines; or an open span itself. */
final class Scope {
    final String traceId;
    final String spanId;
    final byte[] json;
    final Scope outer;
    /** The scope that ends when the span does: this one, or the one that it was derived from. */
    final Scope span;

    /** What only an open span has; {@code ts} in microseconds since the epoch, {@code started} in nanoseconds. */
    String name;
    String parentId;
    Map<String, Object> tags;
    long ts;
    long started;
    volatile boolean ended;

    Scope(String traceId, String spanId, Scope outer, Scope span) {
        this.traceId = traceId;
        this.spanId = spanId;
        this.outer = outer;
        this.span = span == null ? this : span;
        Json text = new Json();
        text.begin();
        text.text(Json.ascii(",\"trace_id\":"), traceId).text(Json.ascii(",\"span_id\":"), spanId);
        this.json = text.bytes();
    }
}
