package wafermon.sdk;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** An encrypted connection, which never blocks once it is open. The server's name is checked. */
final class Tls extends Link {
    private static final Pattern KEY = Pattern.compile("-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\\s]+)-----END");

    private final SSLEngine engine;
    /** Encrypted bytes that came, and plain ones that were made of them; each filled, not flipped. */
    private final ByteBuffer received;
    private ByteBuffer plain;
    /** Encrypted bytes that the socket did not take yet; ready to be written. */
    private final ByteBuffer pending;

    Tls(SocketChannel channel, SSLContext context, Address address, int timeout) throws IOException {
        super(channel);
        engine = context.createSSLEngine(address.host, address.port);
        engine.setUseClientMode(true);
        SSLParameters parameters = engine.getSSLParameters();
        parameters.setEndpointIdentificationAlgorithm("HTTPS");
        engine.setSSLParameters(parameters);
        received = ByteBuffer.allocate(2 * engine.getSession().getPacketBufferSize());
        pending = ByteBuffer.allocate(2 * engine.getSession().getPacketBufferSize()).flip();
        plain = ByteBuffer.allocate(2 * engine.getSession().getApplicationBufferSize());
        engine.beginHandshake();
        for (long left = timeout; engine.getHandshakeStatus() != SSLEngineResult.HandshakeStatus.NOT_HANDSHAKING; left--) {
            if (left == 0 || unwrap() < 0) {
                throw new IOException("no TLS handshake");
            }
            flush();
            Sender.pause(1);
        }
    }

    @Override
    int read(ByteBuffer into) throws IOException {
        int state = plain.position() > 0 ? 0 : unwrap();
        plain.flip();
        int count = Math.min(plain.remaining(), into.remaining());
        into.put(plain.duplicate().limit(count));
        plain.position(count);
        plain.compact();
        return count > 0 ? count : state;
    }

    @Override
    int write(ByteBuffer from) throws IOException {
        int before = from.remaining();
        flush();
        while (!pending.hasRemaining() && from.hasRemaining() && wrap(from) > 0) {
            // the next record
        }
        return before - from.remaining();
    }

    /** Also what TLS itself has to say, as for new keys. */
    @Override
    void flush() throws IOException {
        drain();
        while (!pending.hasRemaining() && engine.getHandshakeStatus() == SSLEngineResult.HandshakeStatus.NEED_WRAP
                && wrap(ByteBuffer.allocate(0)) > 0) {
            // the next record
        }
    }

    /** Encrypt one record; its bytes, 0 where the other side has to say something first. */
    private int wrap(ByteBuffer from) throws IOException {
        pending.clear();
        SSLEngineResult result = engine.wrap(from, pending);
        pending.flip();
        runTasks();
        drain();
        return result.bytesProduced();
    }

    private void drain() throws IOException {
        while (pending.hasRemaining() && channel.write(pending) > 0) {
            // the next part
        }
    }

    @Override
    void finish() throws IOException {
        engine.closeOutbound();
        flush();
        super.finish();
    }

    /** Decrypt what has come; 0, or -1 at the end. */
    private int unwrap() throws IOException {
        int count = channel.read(received);
        received.flip();
        SSLEngineResult.Status status = SSLEngineResult.Status.OK;
        int before = -1;
        while (status == SSLEngineResult.Status.OK && received.remaining() != before
                && engine.getHandshakeStatus() != SSLEngineResult.HandshakeStatus.NEED_WRAP) {
            before = received.remaining();
            status = engine.unwrap(received, plain).getStatus();
            runTasks();
        }
        received.compact();
        if (status == SSLEngineResult.Status.BUFFER_OVERFLOW && plain.position() == 0) {
            plain = ByteBuffer.allocate(2 * plain.capacity());
        }
        return count < 0 || status == SSLEngineResult.Status.CLOSED ? -1 : 0;
    }

    private void runTasks() {
        for (Runnable task; (task = engine.getDelegatedTask()) != null; ) {
            task.run();
        }
    }

    /** Trusts the system's authorities and that of WAFERMON_TLS_CA; has the certificate of _CERT and _KEY. */
    static SSLContext context(Settings settings, Consumer<String> say) {
        try {
            return context(settings.env("WAFERMON_TLS_CA"), settings.env("WAFERMON_TLS_CERT"), settings.env("WAFERMON_TLS_KEY"));
        } catch (GeneralSecurityException | IOException | RuntimeException error) {
            say.accept("can't use the files of WAFERMON_TLS_CA, _CERT and _KEY: " + error);
            try {
                return SSLContext.getDefault();
            } catch (GeneralSecurityException none) {
                throw new IllegalArgumentException("this Java has no TLS", none);
            }
        }
    }

    private static SSLContext context(String ca, String cert, String key) throws GeneralSecurityException, IOException {
        SSLContext context = SSLContext.getInstance("TLS");
        KeyManagerFactory own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        if (cert != null) {
            KeyStore store = empty();
            Certificate[] chain = certificates(cert).toArray(new Certificate[0]);
            store.setKeyEntry("own", privateKey(key == null ? cert : key), new char[0], chain);
            own.init(store, new char[0]);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init((KeyStore) null);
        if (ca != null) {
            KeyStore store = empty();
            int number = 0;
            for (Certificate certificate : certificates(ca)) {
                store.setCertificateEntry("given-" + number++, certificate);
            }
            for (TrustManager manager : trust.getTrustManagers()) {
                for (X509Certificate issuer : ((X509TrustManager) manager).getAcceptedIssuers()) {
                    store.setCertificateEntry("system-" + number++, issuer);
                }
            }
            trust.init(store);
        }
        context.init(cert == null ? null : own.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static KeyStore empty() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        return store;
    }

    private static Collection<? extends Certificate> certificates(String path) throws GeneralSecurityException, IOException {
        try (InputStream pem = new ByteArrayInputStream(Files.readAllBytes(Path.of(path)))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(pem);
        }
    }

    private static PrivateKey privateKey(String path) throws GeneralSecurityException, IOException {
        Matcher pem = KEY.matcher(Files.readString(Path.of(path), StandardCharsets.ISO_8859_1));
        if (!pem.find()) {
            throw new IOException("no key in PKCS 8 in " + path + "; convert it by: openssl pkcs8 -topk8 -nocrypt");
        }
        PKCS8EncodedKeySpec encoded = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem.group(1)));
        for (String algorithm : new String[] {"EC", "RSA", "Ed25519"}) {
            try {
                return KeyFactory.getInstance(algorithm).generatePrivate(encoded);
            } catch (GeneralSecurityException error) {
                // it is of another kind
            }
        }
        throw new IOException("a key of an unknown kind in " + path + "; use RSA or EC");
    }
}
