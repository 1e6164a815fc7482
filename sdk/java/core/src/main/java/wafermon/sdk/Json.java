package wafermon.sdk;

import java.lang.reflect.Array;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.AbstractList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;

/**
 * Writes one message as JSON into a buffer that is used again and again.
 *
 * <p>A message that does not fit into a line is written anew with its strings cut, until it does:
 * <pre>
 * json.begin();
 * do {
 *     json.start(…)…;
 * } while (json.again());
 * </pre>
 * What JSON can't say becomes null, a string or U+FFFD. Nothing that a value's own methods throw comes out of here.
 */
final class Json {
    /** Bytes of a body; the rest of a line is for client and seq. */
    static final int LIMIT = 65_536 - 64;

    private static final long EXACT = 1L << 53;
    private static final int DEPTH = 8;
    /** To cut strings to fewer characters gains nothing. */
    private static final int SHORTEST = 64;
    private static final int BLOCK = 128;
    private static final byte[] REPLACEMENT = {(byte) 0xEF, (byte) 0xBF, (byte) 0xBD};
    private static final byte[] HEX = ascii("0123456789abcdef");
    private static final byte[] NULL = ascii("null");
    private static final byte[] TRUE = ascii("true");
    private static final byte[] FALSE = ascii("false");
    private static final byte[] TRUNCATED = ascii(",\"truncated\":true");
    private static final byte[] SMALLEST_LONG = ascii(Long.toString(Long.MIN_VALUE));

    private byte[] bytes = new byte[1024];
    private int size;
    private boolean truncated;
    private boolean withoutFields;
    /** Strings are cut to {@link #most} characters: that many fit surely (least), and do not fit (greatest). */
    private int most;
    private int least;
    private int greatest;

    static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    // ---- a message ----

    void begin() {
        size = 0;
        most = LIMIT;
        truncated = false;
        withoutFields = false;
    }

    /** Whether the message has to be written once more, since it is too long, or has been cut more than it must be. */
    boolean again() {
        if (truncated) {
            raw(TRUNCATED);
        }
        boolean fits = size <= LIMIT;
        if (!truncated) {
            if (fits) {
                return false;
            }
            truncated = true;
            least = SHORTEST;
            greatest = LIMIT;
            most = SHORTEST;
        } else if (most == least && !fits && !withoutFields) {
            withoutFields = true;  // many short values: no cutting helps
        } else if (greatest - least <= 1) {
            if (most == least) {
                return false;
            }
            most = least;
        } else {
            least = fits ? most : least;
            greatest = fits ? greatest : most;
            most = greatest - least <= 1 ? least : (least + greatest) / 2;
        }
        size = 0;
        return true;
    }

    /** The body just written, with room for the rest of its line. */
    Message message(boolean counted) {
        return new Message(Arrays.copyOf(bytes, size + Message.TAIL), size, counted);
    }

    /** All that was written. */
    byte[] bytes() {
        return Arrays.copyOf(bytes, size);
    }

    boolean isLarge() {
        return bytes.length > 1 << 14;
    }

    // ---- its parts ----

    Json raw(byte[] ascii) {
        room(ascii.length);
        System.arraycopy(ascii, 0, bytes, size, ascii.length);
        size += ascii.length;
        return this;
    }

    Json text(byte[] key, String text) {
        return text == null ? this : raw(key).string(text, most);
    }

    Json integer(byte[] key, long value) {
        return raw(key).digits(value);
    }

    /** A field that is a number; NaN and the infinities are spelled out. */
    Json number(byte[] key, double value) {
        raw(key);
        if (value == (long) value && Math.abs(value) <= EXACT) {
            return digits((long) value);
        }
        return Double.isNaN(value) || Double.isInfinite(value) ? string(Double.toString(value), most) : real(value);
    }

    /** Context or tags; left out where they are null, or where the message is too long with them. */
    Json fields(byte[] key, Map<?, ?> fields) {
        if (fields == null || withoutFields) {
            return this;
        }
        raw(key);
        int start = size;
        try {
            return object(fields, 1);
        } catch (RuntimeException error) {  // the map's own, or one that another thread changes meanwhile
            size = start;
            return raw(ascii("{\"unreadable\":")).string(outline(fields) + ": " + error, most).raw('}');
        }
    }

    /** Tags are strings and numbers: null is left out, and whatever else comes along becomes text. */
    static Map<String, Object> tags(Map<?, ?> given) {
        if (given == null || given.isEmpty()) {
            return null;
        }
        Map<String, Object> tags = new LinkedHashMap<>();
        for (Map.Entry<?, ?> tag : given.entrySet()) {
            if (tag.getValue() != null) {
                tags.put(text(tag.getKey()), tag(tag.getValue()));
            }
        }
        return tags.isEmpty() ? null : tags;
    }

    private static Object tag(Object value) {
        if (value instanceof String || value instanceof Double || value instanceof Integer || value instanceof Long
                || value instanceof BigInteger || value instanceof BigDecimal) {
            return value;
        }
        if (value instanceof Float) {
            return Double.valueOf(value.toString());
        }
        if (value instanceof Number) {  // one that may change before the span's end
            Number number = (Number) value;
            return number.doubleValue() == number.longValue() ? (Object) number.longValue() : number.doubleValue();
        }
        if (!(value instanceof Map) && !(value instanceof Collection) && !(value instanceof Object[])) {
            return text(value);
        }
        Json json = new Json();
        json.begin();
        json.value(value, 2);
        return new String(json.bytes(), StandardCharsets.UTF_8);
    }

    // ---- values ----

    private Json value(Object value, int depth) {
        if (value instanceof String) {
            return string((String) value, most);
        }
        if (value instanceof Number) {
            return anyNumber((Number) value);
        }
        if (value == null || value instanceof Boolean) {
            return raw(value == null ? NULL : (Boolean) value ? TRUE : FALSE);
        }
        if (value instanceof Optional) {
            return value(((Optional<?>) value).orElse(null), depth);
        }
        boolean array = value.getClass().isArray() && !(value instanceof byte[]) && !(value instanceof char[]);
        if (!array && !(value instanceof Map) && !(value instanceof Collection)) {
            return string(text(value), most);
        }
        int start = size;
        try {
            if (depth > DEPTH) {
                return string(outline(value), most);
            }
            return value instanceof Map ? object((Map<?, ?>) value, depth) : list(value, depth);
        } catch (RuntimeException error) {
            size = start;
            return string(outline(value) + ": " + error.getClass().getSimpleName(), most);
        }
    }

    private Json object(Map<?, ?> map, int depth) {
        byte separator = '{';
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            raw(separator).string(text(entry.getKey()), LIMIT).raw(':').value(entry.getValue(), depth + 1);
            separator = ',';
            if (size > LIMIT) {
                return this;  // too long already: what follows is not looked at
            }
        }
        return separator == '{' ? raw('{').raw('}') : raw('}');
    }

    private Json list(Object list, int depth) {
        Collection<?> items = list instanceof Collection ? (Collection<?>) list : new ArrayItems(list);
        byte separator = '[';
        for (Object item : items) {
            raw(separator).value(item, depth + 1);
            separator = ',';
            if (size > LIMIT) {
                return this;
            }
        }
        return separator == '[' ? raw('[').raw(']') : raw(']');
    }

    private Json anyNumber(Number number) {
        if (number instanceof Integer || number instanceof Long || number instanceof Short || number instanceof Byte
                || number instanceof AtomicLong || number instanceof AtomicInteger || number instanceof LongAdder) {
            return exact(number.longValue());
        }
        if (number instanceof BigInteger) {
            BigInteger big = (BigInteger) number;
            // a very long one takes quadratic time in decimal
            String text = big.bitLength() < 2_000 ? big.toString() : "0x" + big.toString(16);
            return big.bitLength() < 64 ? exact(big.longValue()) : string(text, most);
        }
        double value = number.doubleValue();
        if (number instanceof BigDecimal) {
            boolean same = !Double.isInfinite(value) && new BigDecimal(Double.toString(value)).compareTo((BigDecimal) number) == 0;
            return same ? real(value) : string(number.toString(), most);
        }
        boolean finite = !Double.isNaN(value) && !Double.isInfinite(value);
        return number instanceof Float && finite ? raw(ascii(number.toString())) : real(value);
    }

    private Json exact(long value) {
        return Math.abs(value) <= EXACT && value != Long.MIN_VALUE ? digits(value) : raw('"').digits(value).raw('"');
    }

    private Json real(double value) {
        boolean finite = !Double.isNaN(value) && !Double.isInfinite(value);
        return raw(finite ? ascii(Double.toString(value)) : NULL);
    }

    Json digits(long value) {
        if (value == Long.MIN_VALUE) {
            return raw(SMALLEST_LONG);
        }
        if (value < 0) {
            raw('-');
        }
        long rest = Math.abs(value);
        int length = 1;
        for (long power = 10; length < 19 && rest >= power; power *= 10) {
            length++;
        }
        room(length);
        for (int at = size + length - 1; at >= size; at--) {
            bytes[at] = (byte) ('0' + rest % 10);
            rest /= 10;
        }
        size += length;
        return this;
    }

    private Json string(String text, int longest) {
        int end = Math.min(text.length(), longest);
        if (end < text.length() && end > 0 && Character.isHighSurrogate(text.charAt(end - 1))) {
            end--;  // not between the halves of a character
        }
        raw('"');
        for (int at = 0; at < end && size <= LIMIT; ) {
            room(6 * BLOCK);
            for (int stop = Math.min(end, at + BLOCK); at < stop; at++) {
                char c = text.charAt(at);
                if (c >= ' ' && c < 0x80 && c != '"' && c != '\\') {
                    bytes[size++] = (byte) c;
                } else if (c < 0x80) {
                    escaped(c);
                } else if (c < 0x800) {
                    bytes[size++] = (byte) (0xC0 | c >> 6);
                    bytes[size++] = (byte) (0x80 | c & 0x3F);
                } else if (Character.isHighSurrogate(c) && at + 1 < end && Character.isLowSurrogate(text.charAt(at + 1))) {
                    beyond(Character.toCodePoint(c, text.charAt(++at)));
                } else if (Character.isSurrogate(c)) {
                    raw(REPLACEMENT);
                } else {
                    bytes[size++] = (byte) (0xE0 | c >> 12);
                    bytes[size++] = (byte) (0x80 | c >> 6 & 0x3F);
                    bytes[size++] = (byte) (0x80 | c & 0x3F);
                }
            }
        }
        return raw('"');
    }

    private void escaped(char c) {
        int letter = "\"\\\b\t\n\f\r".indexOf(c);
        if (c == 0) {
            raw(REPLACEMENT);
        } else if (letter >= 0) {
            raw('\\').raw("\"\\btnfr".charAt(letter));
        } else {
            raw('\\').raw('u').raw('0').raw('0').raw((char) HEX[c >> 4]).raw((char) HEX[c & 15]);
        }
    }

    private void beyond(int c) {
        bytes[size++] = (byte) (0xF0 | c >> 18);
        bytes[size++] = (byte) (0x80 | c >> 12 & 0x3F);
        bytes[size++] = (byte) (0x80 | c >> 6 & 0x3F);
        bytes[size++] = (byte) (0x80 | c & 0x3F);
    }

    Json raw(char ascii) {
        return raw((byte) ascii);
    }

    private Json raw(byte one) {
        room(1);
        bytes[size++] = one;
        return this;
    }

    private void room(int wanted) {
        if (size + wanted > bytes.length) {
            bytes = Arrays.copyOf(bytes, Math.max(2 * bytes.length, size + wanted));
        }
    }

    /** Any object as text, whatever its own methods do. */
    static String text(Object value) {
        try {
            if (value instanceof byte[]) {
                return new String((byte[]) value, StandardCharsets.UTF_8);
            }
            return value instanceof char[] ? new String((char[]) value) : String.valueOf(String.valueOf(value));
        } catch (RuntimeException | StackOverflowError error) {
            return outline(value);
        }
    }

    private static String outline(Object value) {
        return "<" + value.getClass().getSimpleName() + ">";
    }

    /** The items of an array of any type. */
    private static final class ArrayItems extends AbstractList<Object> {
        private final Object array;

        ArrayItems(Object array) {
            this.array = array;
        }

        @Override
        public Object get(int index) {
            return Array.get(array, index);
        }

        @Override
        public int size() {
            return Array.getLength(array);
        }
    }
}
