package wafermon.sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.AbstractList;
import java.util.AbstractMap;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class JsonTest {
    /** The JSON of a value inside a context. */
    private static String json(Object value) {
        Json json = new Json();
        json.begin();
        json.fields(new byte[0], Collections.singletonMap("k", value));
        String text = new String(json.bytes(), StandardCharsets.UTF_8);
        assertTrue(text.startsWith("{\"k\":") && text.endsWith("}"), text);
        return text.substring(5, text.length() - 1);
    }

    private static String line(String message, Map<String, Object> context) {
        Json json = new Json();
        json.begin();
        do {
            json.raw(Json.ascii("{\"type\":\"event\"")).text(Json.ascii(",\"message\":"), message)
                    .fields(Json.ascii(",\"context\":"), context);
        } while (json.again());
        return new String(json.bytes(), StandardCharsets.UTF_8);
    }

    @Test
    void numbersAreWhatTheyWere() {
        assertEquals("-7", json((byte) -7));
        assertEquals("0", json(0));
        assertEquals("9007199254740992", json(1L << 53));
        assertEquals("\"-9007199254740993\"", json(-(1L << 53) - 1));
        assertEquals("\"-9223372036854775808\"", json(Long.MIN_VALUE));
        assertEquals("\"18446744073709551615\"", json(new BigInteger("18446744073709551615")));
        assertEquals("12", json(BigInteger.valueOf(12)));
        assertEquals("0.1", json(0.1f), "a float is not widened to a double's digits");
        assertEquals("-0.0", json(-0.0));
        assertEquals("1.5", json(new BigDecimal("1.5")));
        assertEquals("\"0.1234567890123456789\"", json(new BigDecimal("0.1234567890123456789")), "no digit is lost");
        assertEquals("null", json(Double.NaN));
        assertEquals("null", json(Float.POSITIVE_INFINITY));
        assertEquals("5", json(new AtomicLong(5)));
        assertEquals("6", json(new AtomicInteger(6)));
    }

    @Test
    void arraysAndCollectionsAreArrays() {
        assertEquals("[1,2]", json(new int[] {1, 2}));
        assertEquals("[true]", json(new boolean[] {true}));
        assertEquals("[\"a\",null]", json(new String[] {"a", null}));
        assertEquals("[[1.5],[]]", json(new double[][] {{1.5}, {}}));
        assertEquals("[1]", json(Set.of(1)));
        assertEquals("[]", json(List.of()));
        assertEquals("{}", json(Map.of()));
        assertEquals("{\"null\":1}", json(Collections.singletonMap(null, 1)));
    }

    @Test
    void otherObjectsAreText() {
        assertEquals("\"abc\"", json("abc".toCharArray()));
        assertEquals("\"\u00e9\"", json("\u00e9".getBytes(StandardCharsets.UTF_8)));
        assertEquals("\"INFO\"", json(Level.INFO));
        assertEquals("\"2026-01-01T00:00:00Z\"", json(Instant.parse("2026-01-01T00:00:00Z")));
        assertEquals("3", json(Optional.of(3)));
        assertEquals("null", json(Optional.empty()));
        assertEquals("true", json(true));
        assertEquals("\"x\"", json('x'));
    }

    @Test
    void whatAValueThrowsStaysInside() {
        Object rude = new Object() {
            @Override
            public String toString() {
                throw new IllegalStateException("no");
            }
        };
        Object silent = new Object() {
            @Override
            public String toString() {
                return null;
            }
        };
        Map<String, Object> broken = new AbstractMap<>() {
            @Override
            public Set<Entry<String, Object>> entrySet() {
                throw new UnsupportedOperationException("no");
            }
        };
        Object endless = new Object() {
            @Override
            public String toString() {
                return String.valueOf(this);
            }
        };
        assertEquals("\"<>\"", json(rude));
        assertEquals("\"null\"", json(silent));
        assertEquals("\"<>\"", json(endless));
        assertEquals("\"<>: UnsupportedOperationException\"", json(broken));
        assertEquals("{\"type\":\"event\",\"message\":\"m\",\"context\":{\"unreadable\":"
                + "\"<>: java.lang.UnsupportedOperationException: no\"}", line("m", broken));
    }

    @Test
    void aMapThatChangesMeanwhileBecomesText() {
        Map<String, Object> changing = new LinkedHashMap<>();
        changing.put("a", new Object() {
            @Override
            public String toString() {
                changing.put("b" + changing.size(), 1);
                return "a";
            }
        });
        changing.put("z", 2);
        assertEquals("\"<LinkedHashMap>: ConcurrentModificationException\"", json(changing));
    }

    @Test
    void nestingIsCutAndCyclesEnd() {
        List<Object> cycle = new ArrayList<>();
        cycle.add(cycle);
        assertEquals("[[[[[[[\"<ArrayList>\"]]]]]]]", json(cycle));
    }

    @Test
    void everyLengthAroundTheLimitFits() {
        for (int length = Json.LIMIT - 40; length < Json.LIMIT + 40; length++) {
            String line = line("x".repeat(length), null);
            boolean whole = length + "{\"type\":\"event\",\"message\":\"\"".length() <= Json.LIMIT;
            assertEquals(!whole, line.endsWith(",\"truncated\":true"), "length " + length);
            assertTrue(line.length() <= Json.LIMIT);
            assertTrue(line.length() >= Json.LIMIT - 40, "cut more than it must be: " + line.length());
        }
    }

    @Test
    void hugeValuesAreNotReadToTheirEnd() {
        AtomicInteger read = new AtomicInteger();
        List<Integer> endless = new AbstractList<>() {
            @Override
            public Integer get(int index) {
                return read.incrementAndGet();
            }

            @Override
            public int size() {
                return Integer.MAX_VALUE;
            }
        };
        assertEquals("{\"type\":\"event\",\"message\":\"m\",\"truncated\":true", line("m", Map.of("numbers", endless)));
        assertTrue(read.get() < 1_000_000, read + " numbers were read");
    }

    @Test
    void tagsAreTextAndNumbers() {
        Map<String, Object> given = new LinkedHashMap<>();
        given.put("text", "t");
        given.put("number", 1.5);
        given.put("none", null);
        given.put("flag", true);
        given.put("list", List.of(1, "b"));
        given.put("level", Level.ERROR);
        AtomicLong moving = new AtomicLong(4);
        given.put("moving", moving);
        Map<String, Object> tags = Json.tags(given);
        moving.set(5);
        assertEquals("{text=t, number=1.5, flag=true, list=[1,\"b\"], level=ERROR, moving=4}", tags.toString());
    }
}
