package wafermon.sdk;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A span of a block: {@code try (Span span = sdk.span("load")) { … }}. It ends with status {@code ok}, or {@code error}
 * where {@link #error()} was called. It may be closed in another thread than the one that opened it.
 */
public final class Span implements AutoCloseable {
    private final MonitoringSDK sdk;
    private final String id;
    private Map<String, Object> tags;
    private String status = "ok";

    Span(MonitoringSDK sdk, String id) {
        this.sdk = sdk;
        this.id = id;
    }

    /**
     * Its id.
     *
     * @return 16 hex digits
     */
    public String id() {
        return id;
    }

    /**
     * Add a tag, which is sent at the span's end.
     *
     * @param key the tag's name
     * @param value text or a number; anything else is sent as text, null not at all
     * @return this span
     */
    public synchronized Span tag(String key, Object value) {
        tags = tags == null ? new LinkedHashMap<>() : tags;
        tags.put(key, value);
        return this;
    }

    /**
     * Let the span end with status {@code error}.
     *
     * @return this span
     */
    public synchronized Span error() {
        status = "error";
        return this;
    }

    /**
     * Let the span end with status {@code error} and a tag {@code error} that tells why.
     *
     * @param reason what went wrong
     * @return this span
     */
    public Span error(Throwable reason) {
        return error().tag("error", Json.text(reason));
    }

    /** End the span; harmless where it has ended already. */
    @Override
    public synchronized void close() {
        if (sdk.isOpen(id)) {
            sdk.endSpan(id, status, tags);
        }
    }
}
