package wafermon.sdk;

import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ProtocolFamily;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import javax.net.ssl.SSLContext;

/** A connection, whose reading and writing never block. This one is plain; {@link Tls} is encrypted. */
class Link {
    final SocketChannel channel;

    Link(SocketChannel channel) {
        this.channel = channel;
    }

    /** Look the host up, connect, and agree on TLS, which may take a while: all addresses, so many ms for each. */
    static Link open(Address address, SSLContext tls, int timeout) throws IOException {
        if (address.scheme.equals("unix")) {
            return new Link(unix(address.host));
        }
        IOException failure = null;
        for (InetAddress one : InetAddress.getAllByName(address.host)) {
            SocketChannel channel = SocketChannel.open();
            try {
                channel.socket().connect(new InetSocketAddress(one, address.port), timeout);
                channel.configureBlocking(false);
                channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
                return tls == null ? new Link(channel) : new Tls(channel, tls, address, timeout);
            } catch (IOException error) {
                channel.close();
                failure = error;
            }
        }
        throw failure;
    }

    /** Unix sockets came with Java 16; this is compiled for Java 11. */
    private static SocketChannel unix(String path) throws IOException {
        SocketChannel channel = null;
        try {
            Object at = Class.forName("java.net.UnixDomainSocketAddress").getMethod("of", String.class).invoke(null, path);
            channel = (SocketChannel) SocketChannel.class.getMethod("open", ProtocolFamily.class)
                    .invoke(null, StandardProtocolFamily.valueOf("UNIX"));
            channel.configureBlocking(false);
            if (channel.connect((SocketAddress) at)) {
                return channel;
            }
            throw new IOException("the sidecar's queue of connections is full");
        } catch (ReflectiveOperationException | IllegalArgumentException error) {
            Throwable cause = error instanceof InvocationTargetException ? error.getCause() : error;
            throw new IOException("no Unix sockets here (they need Java 16): " + cause, error);
        } catch (IOException error) {
            channel.close();
            throw error;
        }
    }

    /** As {@link SocketChannel#read(ByteBuffer)}: bytes read, 0 for none now, -1 at the end. */
    int read(ByteBuffer into) throws IOException {
        return channel.read(into);
    }

    /** Bytes taken. They may still be in a buffer here: {@link #flush} again. */
    int write(ByteBuffer from) throws IOException {
        return channel.write(from);
    }

    void flush() throws IOException {
        // nothing is kept back here
    }

    /** Say that nothing more comes from this side. */
    void finish() throws IOException {
        channel.shutdownOutput();
    }

    void close() {
        try {
            channel.close();
        } catch (IOException error) {
            // it is gone all the same
        }
    }
}
