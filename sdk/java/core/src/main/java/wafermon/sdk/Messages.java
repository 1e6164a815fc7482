package wafermon.sdk;

import java.time.Instant;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReferenceArray;

/** Encodes messages of every type, in the thread that calls. Each is one body, short enough for a line. */
final class Messages {
    private static final String VERSION = "java/2.0.0";
    private static final byte[] EVENT = head("event");
    private static final byte[] METRIC = head("metric");
    private static final byte[] PROGRESS = head("progress");
    private static final byte[] RESOURCE = head("resource");
    private static final byte[] SPAN_START = head("span_start");
    private static final byte[] SPAN_END = head("span_end");
    private static final byte[] STATS = Json.ascii("{\"v\":2,\"type\":\"stats\",\"ts\":");
    private static final byte[] MESSAGE = key("message");
    private static final byte[] CONTEXT = key("context");
    private static final byte[] TAGS = key("tags");
    private static final byte[] NAME = key("name");
    private static final byte[] VALUE = key("value");
    private static final byte[] UNIT = key("unit");
    private static final byte[] COUNTER = Json.ascii(",\"kind\":\"counter\"");
    private static final byte[] JOB_ID = key("job_id");
    private static final byte[] PERCENT = key("percent");
    private static final byte[] STATUS = key("status");
    private static final byte[][] MEASURED = {key("cpu"), key("mem"), key("disk"), key("net")};
    private static final byte[] PARENT_ID = key("parent_id");
    private static final byte[] START = key("start");
    private static final byte[] DURATION = key("duration");
    private static final int POOL = 8;

    private final String service;
    private final String host;
    private final byte[] origin;
    private final AtomicReferenceArray<Json> pool = new AtomicReferenceArray<>(POOL);

    Messages(Settings settings) {
        this.service = settings.service;
        this.host = settings.host;
        Json json = new Json();
        json.begin();
        json.text(key("service"), service).text(key("host"), host).integer(key("pid"), ProcessHandle.current().pid());
        this.origin = json.bytes();
    }

    private static byte[] head(String type) {
        return Json.ascii("{\"type\":\"" + type + "\",\"ts\":");
    }

    private static byte[] key(String name) {
        return Json.ascii(",\"" + name + "\":");
    }

    /** Microseconds since the Unix epoch. */
    static long clock() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000 + now.getNano() / 1_000;
    }

    Message event(long ts, Scope scope, Level level, String message, Map<?, ?> context) {
        Json json = take();
        do {
            start(json, EVENT, ts, scope).raw(level.json).text(MESSAGE, message).fields(CONTEXT, context);
        } while (json.again());
        return done(json);
    }

    Message metric(Scope scope, String name, double value, String unit, boolean counter, Map<?, ?> tags) {
        long ts = clock();
        Json json = take();
        do {
            start(json, METRIC, ts, scope).text(NAME, name).number(VALUE, value).text(UNIT, unit);
            (counter ? json.raw(COUNTER) : json).fields(TAGS, tags);
        } while (json.again());
        return done(json);
    }

    Message progress(Scope scope, String jobId, double percent, String status) {
        long ts = clock();
        Json json = take();
        do {
            start(json, PROGRESS, ts, scope).text(JOB_ID, jobId).number(PERCENT, percent).text(STATUS, status);
        } while (json.again());
        return done(json);
    }

    /** Cpu, mem, disk, net; what is not finite is left out. */
    Message resource(Scope scope, double... measured) {
        Json json = take();
        do {
            start(json, RESOURCE, clock(), scope);
            for (int which = 0; which < measured.length; which++) {
                if (!Double.isNaN(measured[which]) && !Double.isInfinite(measured[which])) {
                    json.number(MEASURED[which], measured[which]);
                }
            }
        } while (json.again());
        return done(json);
    }

    Message spanStart(Scope span) {
        Json json = take();
        do {
            start(json, SPAN_START, span.ts, span).text(NAME, span.name).text(PARENT_ID, span.parentId).fields(TAGS, span.tags);
        } while (json.again());
        return done(json);
    }

    /** The duration is in microseconds. */
    Message spanEnd(Scope span, String status, long duration, Map<?, ?> tags) {
        long ts = clock();
        Json json = take();
        do {
            start(json, SPAN_END, ts, span).text(STATUS, status).text(NAME, span.name).integer(START, span.ts);
            json.integer(DURATION, duration).text(PARENT_ID, span.parentId).fields(TAGS, tags);
        } while (json.again());
        return done(json);
    }

    /** What the sidecar needs to know that a stream is whole. */
    Message stats(long called, long dropped, long unsent, long last, Map<String, Long> streams, boolean ends) {
        Json json = take();
        json.begin();
        json.raw(STATS).digits(clock()).raw(origin).integer(key("called"), called).integer(key("dropped"), dropped);
        json.integer(key("unsent"), unsent).integer(key("last"), last).raw(key("streams")).raw('[');
        char separator = 0;
        for (Map.Entry<String, Long> stream : streams.entrySet()) {
            json = separator == 0 ? json : json.raw(separator);
            json.raw(Json.ascii("{\"client\":\"" + stream.getKey() + "\"")).integer(key("last"), stream.getValue()).raw('}');
            separator = ',';
        }
        json.raw(']').raw(Json.ascii(ends ? ",\"final\":true" : ""));
        return json.message(false);
    }

    byte[] hello(String client, String token, boolean compress) {
        Json json = new Json();
        json.begin();
        json.raw(Json.ascii("{\"v\":2,\"type\":\"hello\"")).text(key("client"), client).raw(origin);
        json.text(key("sdk"), VERSION).raw(Json.ascii(",\"ack\":true")).text(key("token"), token);
        return json.raw(Json.ascii(compress ? ",\"compress\":[\"zlib\"]}\n" : "}\n")).bytes();
    }

    private Json start(Json json, byte[] head, long ts, Scope scope) {
        return json.raw(head).digits(ts).raw(origin).raw(scope.json);
    }

    /** A buffer of its own for each call, used again: virtual threads are too many to keep one each. */
    private Json take() {
        Json json = pool.getAndSet((int) Thread.currentThread().getId() & (POOL - 1), null);
        Json mine = json == null ? new Json() : json;
        mine.begin();
        return mine;
    }

    private Message done(Json json) {
        Message message = json.message(true);
        if (!json.isLarge()) {
            pool.lazySet((int) Thread.currentThread().getId() & (POOL - 1), json);
        }
        return message;
    }
}
