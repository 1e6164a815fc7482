package wafermon.sdk;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Where a sidecar listens; of a Unix socket the path is the host. */
final class Address {
    static final String DEFAULT = "tcp://127.0.0.1:7411";
    private static final Pattern URL = Pattern.compile(
            "unix://(/.+)|(tcp|tls)://(?:\\[([0-9A-Fa-f:.]+)\\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?");

    final String scheme;
    final String host;
    final int port;

    private Address(String scheme, String host, int port) {
        this.scheme = scheme;
        this.host = host;
        this.port = port;
    }

    /** Null for what is no sidecar's url. */
    static Address parse(String url) {
        Matcher found = URL.matcher(url);
        if (!found.matches()) {
            return null;
        }
        if (found.group(1) != null) {
            return new Address("unix", found.group(1), 0);
        }
        String scheme = found.group(2);
        int port = found.group(5) != null ? Integer.parseInt(found.group(5)) : scheme.equals("tls") ? 7413 : 7411;
        String host = found.group(3) != null ? found.group(3) : found.group(4);
        return port < 1 || port > 65_535 ? null : new Address(scheme, host, port);
    }
}
