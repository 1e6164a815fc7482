package wafermon.sdk;

import java.nio.ByteBuffer;
import java.util.zip.Deflater;

/** Lines as one compressed block with a header: what a sidecar takes whose welcome says so. */
final class Frames {
    /** Bytes of lines that are worth a frame, and that one holds at most. */
    static final int LEAST = 1 << 10;
    static final int MOST = 1 << 18;
    private static final int HEADER = 96;

    private final Deflater deflater = new Deflater(Deflater.BEST_SPEED);

    ByteBuffer frame(ByteBuffer lines, int count) {
        int raw = lines.remaining();
        byte[] block = new byte[raw + 512];
        deflater.reset();
        deflater.setInput(lines.array(), 0, raw);
        deflater.finish();
        int size = deflater.deflate(block);
        if (!deflater.finished()) {
            return lines;  // it has grown: plain lines may come at any time
        }
        String header = "{\"type\":\"frame\",\"codec\":\"zlib\",\"bytes\":" + size + ",\"raw\":" + raw + ",\"lines\":" + count + "}\n";
        return ByteBuffer.allocate(HEADER + size).put(Json.ascii(header)).put(block, 0, size).flip();
    }

    void end() {
        deflater.end();
    }
}
