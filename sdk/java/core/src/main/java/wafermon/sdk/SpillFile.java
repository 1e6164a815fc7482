package wafermon.sdk;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * A file of whole lines with a client of its own; locked as long as its writer lives and wants it.
 *
 * <p>The lock is that of fcntl, which belongs to the process: no other descriptor of the file may be closed here.
 */
final class SpillFile {
    static final int MOST_BYTES = 1 << 20;

    final String client;
    long count;
    long size;
    private final FileChannel channel;
    private Path path;

    SpillFile(Path directory, String service, String client) throws IOException {
        this.client = client;
        path = directory.resolve(service + "." + ProcessHandle.current().pid() + "." + client + ".ldjson");
        channel = FileChannel.open(path, Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.READ,
                StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS),
                PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
        try {
            // whatever the umask: in a setgid spill dir the group is the sidecar's
            Files.setPosixFilePermissions(path, PosixFilePermissions.fromString("rw-rw----"));
            channel.tryLock();
        } catch (IOException error) {
            // a file system without modes or locks: the sidecar waits until the file rests
        }
    }

    /** Write the lines that fit into so many bytes; how many got there. One that a full disk cuts is taken back. */
    int append(List<Message> lines, long room) {
        int fits = 0;
        int bytes = 0;
        while (fits < lines.size() && bytes + lines.get(fits).size <= room) {
            bytes += lines.get(fits++).size;
        }
        ByteBuffer data = ByteBuffer.allocate(bytes);
        for (Message line : lines.subList(0, fits)) {
            data.put(line.bytes, 0, line.size);
        }
        data.flip();
        try {
            while (data.hasRemaining() && channel.write(data, size + data.position()) > 0) {
                // the next part
            }
        } catch (IOException error) {
            // what is not there is not counted
        }
        int done = 0;
        int kept = 0;
        while (done < fits && kept + lines.get(done).size <= data.position()) {
            kept += lines.get(done).size;
            count += lines.get(done++).counted ? 1 : 0;
        }
        try {
            channel.truncate(size + kept);
        } catch (IOException error) {
            done = kept == data.position() ? done : 0;
        }
        size += kept;
        return done;
    }

    /** Its lines. */
    List<Message> read() throws IOException {
        ByteBuffer data = ByteBuffer.allocate((int) size);
        while (data.hasRemaining() && channel.read(data, data.position()) > 0) {
            // the next part
        }
        List<Message> lines = new ArrayList<>();
        for (String line : new String(data.array(), 0, data.position(), StandardCharsets.ISO_8859_1).split("(?<=\n)")) {
            byte[] bytes = line.getBytes(StandardCharsets.ISO_8859_1);
            lines.add(new Message(bytes, bytes.length, true));
            lines.get(lines.size() - 1).seq = lines.size();
        }
        return lines;
    }

    /** Take it for sending; false when somebody else has. */
    boolean claim() {
        try {
            Path taken = path.resolveSibling(path.getFileName() + ".taken");
            Files.move(path, taken, StandardCopyOption.ATOMIC_MOVE);
            path = taken;
            return true;
        } catch (IOException error) {
            return false;
        }
    }

    /** Give it to the one that takes it up. */
    void leave() {
        try {
            String name = path.getFileName().toString();
            if (name.endsWith(".taken")) {
                Path free = path.resolveSibling(name.substring(0, name.length() - ".taken".length()));
                Files.move(path, free, StandardCopyOption.ATOMIC_MOVE);
            }
        } catch (IOException error) {
            // somebody has taken it up
        }
        close();
    }

    void remove() {
        try {
            Files.deleteIfExists(path);
        } catch (IOException error) {
            // the sidecar finds it, and drops what it holds
        }
        close();
    }

    void close() {
        try {
            channel.close();
        } catch (IOException error) {
            // the lock is gone all the same
        }
    }
}
