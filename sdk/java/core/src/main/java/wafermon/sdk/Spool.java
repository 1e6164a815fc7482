package wafermon.sdk;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;

/** An SDK's spill files, oldest first: the newest is written, only closed ones are sent. */
final class Spool {
    private static final int MOST_FILES = 64;
    /** Milliseconds until a full or missing disk is tried again. */
    private static final long RETRY = 1_000;
    /** Streams that a stats line names at most: the newest, so that it fits into a line. */
    private static final int MOST_STREAMS = 1_000;

    final ArrayDeque<SpillFile> files = new ArrayDeque<>();
    /** The last seq of each file's client, oldest first. */
    final Map<String, Long> streams = new LinkedHashMap<>();
    /** Whether the newest file takes more. */
    boolean writing;

    private final String directory;
    private final String service;
    private final Supplier<String> ids;
    private long retryAt;

    Spool(String directory, String service, Supplier<String> ids) {
        this.directory = directory;
        this.service = service;
        this.ids = ids;
    }

    /** Append messages; how many there was room for. Times are in milliseconds. */
    int write(List<Message> bodies, long now) {
        int done = 0;
        while (done < bodies.size() && now >= retryAt) {
            if (!writing) {
                // one more may be on its way to the sidecar
                SpillFile file = files.size() < MOST_FILES - 1 ? open(ids.get()) : null;
                if (file == null) {
                    retryAt = now + RETRY;
                    break;
                }
                files.add(file);
            }
            SpillFile file = files.getLast();
            byte[] tail = Message.tail(file.client);
            List<Message> lines = new ArrayList<>();
            long room = SpillFile.MOST_BYTES - file.size;
            for (Message body : bodies.subList(done, bodies.size())) {
                Message line = new Message(body.bytes, body.size, true);
                line.number(tail, file.count + lines.size() + 1);
                lines.add(line);
                room -= line.size;
                if (room < 0) {
                    break;
                }
            }
            int written = file.append(lines, SpillFile.MOST_BYTES - file.size);
            done += written;
            writing = done == bodies.size();
            if (file.count > 0) {
                remember(file.client, file.count);
            } else {  // not one: the disk is full
                retryAt = now + RETRY;
                files.removeLast().remove();
            }
        }
        return done;
    }

    /** Write what close() could not deliver, with the seqs it has, to a file of the SDK's own client; how much. */
    int leave(String client, List<Message> lines) {
        SpillFile file = lines.isEmpty() ? null : open(client);
        if (file == null) {
            return 0;
        }
        long room = (long) MOST_FILES * SpillFile.MOST_BYTES;
        for (SpillFile other : files) {
            room -= other.size;
        }
        int written = file.append(lines, room);
        if (written > 0) {
            file.leave();
        } else {
            file.remove();
        }
        return (int) file.count;
    }

    private void remember(String client, long last) {
        streams.put(client, last);
        if (streams.size() > MOST_STREAMS) {
            streams.remove(streams.keySet().iterator().next());
        }
    }

    private SpillFile open(String client) {
        try {
            Path spool = Path.of("/var/spool/wafermon");
            Path given = directory != null ? Path.of(directory) : spool;
            if (directory == null && !(Files.isWritable(spool) && Files.isExecutable(spool))) {
                Object uid = Files.getAttribute(Path.of("/proc/self"), "unix:uid");
                given = Path.of("/tmp/wafermon-" + uid);
                Files.createDirectories(given, PosixFilePermissions.asFileAttribute(
                        PosixFilePermissions.fromString("rwx------")));
                Set<PosixFilePermission> mode = Files.getPosixFilePermissions(given, LinkOption.NOFOLLOW_LINKS);
                Object owner = Files.getAttribute(given, "unix:uid", LinkOption.NOFOLLOW_LINKS);
                if (!owner.equals(uid) || Files.isSymbolicLink(given)
                        || mode.contains(PosixFilePermission.GROUP_WRITE) || mode.contains(PosixFilePermission.OTHERS_WRITE)) {
                    return null;  // somebody else has laid it there
                }
            }
            Files.createDirectories(given, PosixFilePermissions.asFileAttribute(
                    PosixFilePermissions.fromString("rwx------")));
            return new SpillFile(given, service, client);
        } catch (IOException | RuntimeException error) {
            return null;
        }
    }
}
