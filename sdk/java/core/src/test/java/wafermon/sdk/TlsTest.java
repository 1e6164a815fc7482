package wafermon.sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import wafermon.sidecar.FakeSidecar;

/** Real sockets, real certificates: each signs itself, made by the JDK's keytool. */
class TlsTest {
    private static final char[] PASSWORD = "changeit".toCharArray();

    @TempDir
    static Path keys;

    @TempDir
    Path spill;

    @BeforeAll
    static void makeKeys() throws Exception {
        make("localhost", "RSA", "localhost");
        make("elsewhere", "EC", "elsewhere.example");
        make("client", "EC", "client");
    }

    private static void make(String name, String algorithm, String host) throws Exception {
        String keytool = Path.of(System.getProperty("java.home"), "bin", "keytool").toString();
        Process made = new ProcessBuilder(keytool, "-genkeypair", "-alias", name, "-keyalg", algorithm, "-dname", "CN=" + host,
                "-ext", "SAN=dns:" + host, "-storetype", "PKCS12", "-keystore", keys.resolve(name).toString(),
                "-storepass", new String(PASSWORD)).redirectErrorStream(true).start();
        String said = new String(made.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, made.waitFor(), said);
        KeyStore store = store(name);
        pem(name + ".crt", "CERTIFICATE", store.getCertificate(name).getEncoded());
        pem(name + ".key", "PRIVATE KEY", store.getKey(name, PASSWORD).getEncoded());
    }

    private static void pem(String file, String kind, byte[] content) throws Exception {
        String body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(content);
        Files.writeString(keys.resolve(file), "-----BEGIN " + kind + "-----\n" + body + "\n-----END " + kind + "-----\n");
    }

    private static KeyStore store(String name) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(keys.resolve(name))) {
            store.load(in, PASSWORD);
        }
        return store;
    }

    private static FakeSidecar sidecar(String name, boolean mutual) throws Exception {
        KeyManagerFactory own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        own.init(store(name), PASSWORD);
        KeyStore clients = KeyStore.getInstance("PKCS12");
        clients.load(null, null);
        clients.setCertificateEntry("client", store("client").getCertificate("client"));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(clients);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(own.getKeyManagers(), trust.getTrustManagers(), null);
        SSLServerSocket listener = (SSLServerSocket) FakeSidecar.bind(context.getServerSocketFactory());
        listener.setNeedClientAuth(mutual);
        return new FakeSidecar(listener, "tls");
    }

    private MonitoringSDK open(FakeSidecar sidecar, String... variables) {
        Map<String, String> environment = new HashMap<>();
        for (int i = 0; i < variables.length; i += 2) {
            environment.put("WAFERMON_TLS_" + variables[i], keys.resolve(variables[i + 1]).toString());
        }
        return MonitoringSDK.builder("tls").url(sidecar.url()).spillDir(spill.toString()).environment(environment).build();
    }

    private static void assertDelivers(FakeSidecar sidecar, MonitoringSDK sdk) {
        try (sdk) {
            String large = "x".repeat(20_000);
            for (int i = 0; i < 500; i++) {
                sdk.logEvent(Level.INFO, large);
            }
            assertTrue(sdk.flush(Duration.ofSeconds(30)), sdk.getStats().toString());
        }
        assertEquals(500, sidecar.lines().size(), sdk.getStats().toString());
    }

    private static void assertRefuses(FakeSidecar sidecar, MonitoringSDK sdk) throws Exception {
        int before = sidecar.connections();
        sdk.logEvent(Level.INFO, "secret");
        FakeSidecar.await(() -> sidecar.connections() >= before + 3);
        sdk.close();
        Stats stats = sdk.getStats();
        assertEquals("disconnected", stats.state);
        assertEquals(1, stats.handedOver, stats.toString());
        assertEquals(0, sidecar.lines().size());
    }

    @Test
    void aKnownSidecarGetsAll() throws Exception {
        try (FakeSidecar sidecar = sidecar("localhost", false)) {
            assertDelivers(sidecar, open(sidecar, "CA", "localhost.crt"));
        }
    }

    @Test
    void eachShowsItsCertificate() throws Exception {
        try (FakeSidecar sidecar = sidecar("localhost", true)) {
            assertDelivers(sidecar, open(sidecar, "CA", "localhost.crt", "CERT", "client.crt", "KEY", "client.key"));
        }
    }

    @Test
    void withoutACertificateNothingIsSaid() throws Exception {
        try (FakeSidecar sidecar = sidecar("localhost", true)) {
            assertRefuses(sidecar, open(sidecar, "CA", "localhost.crt"));
        }
    }

    @Test
    void anUnknownSidecarGetsNothing() throws Exception {
        try (FakeSidecar sidecar = sidecar("localhost", false)) {
            assertRefuses(sidecar, open(sidecar));
        }
    }

    @Test
    void aSidecarOfAnotherNameGetsNothing() throws Exception {
        try (FakeSidecar sidecar = sidecar("elsewhere", false)) {
            assertRefuses(sidecar, open(sidecar, "CA", "elsewhere.crt"));
        }
    }

    @Test
    void filesThatAreNoneAreSaidAndNothingIsSent() throws Exception {
        try (FakeSidecar sidecar = sidecar("localhost", false)) {
            assertRefuses(sidecar, open(sidecar, "CA", "nothing.crt"));
            assertRefuses(sidecar, open(sidecar, "CA", "localhost.crt", "CERT", "client.crt", "KEY", "client.crt"));
        }
    }
}
