package wafermon.sdk;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A line from the sidecar: its own strings and numbers; what is deeper inside counts only under {@code features}. */
final class Reply {
    private static final Pattern TOKEN = Pattern.compile("\"((?:[^\"\\\\]++|\\\\.)*+)\"|[{}\\[\\]:,]|[^\\s{}\\[\\]:,\"]+");

    final Set<String> features = new HashSet<>();
    private final Map<String, String> values = new HashMap<>();

    private Reply() {
    }

    static Reply parse(String line) {
        Reply reply = new Reply();
        int depth = 0;
        String key = null;
        String last = "";
        for (Matcher tokens = TOKEN.matcher(line); tokens.find(); ) {
            String token = tokens.group();
            char first = token.charAt(0);
            if (first == '{' || first == '[') {
                depth++;
            } else if (first == '}' || first == ']') {
                depth--;
            } else if (first == ':' || first == ',') {
                key = depth > 1 ? key : first == ':' ? last : null;
            } else {
                last = first == '"' ? tokens.group(1) : token;
                if (depth == 1 && key != null) {
                    reply.values.put(key, last);
                } else if (depth == 2 && "features".equals(key)) {
                    reply.features.add(last);
                }
            }
        }
        return reply;
    }

    boolean is(String type) {
        return type.equals(values.get("type"));
    }

    String get(String key, String otherwise) {
        return values.getOrDefault(key, otherwise);
    }

    /** A number that has to be there; else NumberFormatException. */
    long number(String key) {
        return Long.parseLong(get(key, ""));
    }
}
