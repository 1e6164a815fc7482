package wafermon.sdk;

import java.nio.charset.StandardCharsets;

/** One line on its way. Until it has a seq it is a body: a JSON object without client, seq and its closing brace. */
final class Message {
    /** Bytes that client, seq and the line's end take at most. */
    static final int TAIL = 56;

    /** The first {@link #size} bytes are the body, or the line; of a body, {@link #TAIL} more are free. */
    final byte[] bytes;

    /** False for a stats line, which counts in none of the SDK's figures. */
    final boolean counted;

    int size;
    long seq;

    Message(byte[] bytes, int size, boolean counted) {
        this.bytes = bytes;
        this.size = size;
        this.counted = counted;
    }

    /** How a line of this client goes on after its body. */
    static byte[] tail(String client) {
        return (",\"client\":\"" + client + "\",\"seq\":").getBytes(StandardCharsets.US_ASCII);
    }

    /** Make a line of the body. It keeps this seq for ever. */
    void number(byte[] tail, long seq) {
        byte[] end = (seq + "}\n").getBytes(StandardCharsets.US_ASCII);
        System.arraycopy(tail, 0, bytes, size, tail.length);
        System.arraycopy(end, 0, bytes, size + tail.length, end.length);
        size += tail.length + end.length;
        this.seq = seq;
    }
}
