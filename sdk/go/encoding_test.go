//go:build unix

package monitoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

type panics struct{ Inner int }

func (panics) String() string { panic("no") }

type fails struct{ err error }

func (f *fails) Error() string { return f.err.Error() } // panics on nil

type celsius float32

type row struct {
	Name   string `json:"name"`
	Count  int    `json:"count,omitempty"`
	Hidden string `json:"-"`
	Plain  []int
	secret int
}

type loop *loop

func encodedValue(value any) string {
	e := &encoder{most: maxBody}
	e.value(value, 2)
	return string(e.buf)
}

func TestValues(t *testing.T) {
	three := 3
	var itself loop
	itself = &itself
	cycle := map[string]any{}
	cycle["self"] = cycle
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, `null`},
		{"a\"\\\n\x01\x7f", `"a\"\\\n\u0001` + "\x7f\""},
		{"a\x00b\xffc\xc0\xafd\xed\xa0\x80", `"a` + "\ufffdb\ufffdc\ufffd\ufffdd\ufffd\ufffd\ufffd" + `"`},
		{"grüß 😀 \u2028", `"grüß 😀 ` + "\u2028" + `"`},
		{true, `true`},
		{int8(-5), `-5`},
		{uint16(5), `5`},
		{int64(1 << 53), `9007199254740992`},
		{int64(1<<53 + 1), `"9007199254740993"`},
		{int64(math.MinInt64), `"-9223372036854775808"`},
		{uint64(math.MaxUint64), `"18446744073709551615"`},
		{math.Nextafter(0.3, 1), `0.30000000000000004`},
		{1e300, `1e+300`},
		{5e-324, `5e-324`},
		{float32(0.1), `0.1`},
		{celsius(21.5), `21.5`},
		{5.0, `5`},
		{math.Copysign(0, -1), `-0`},
		{math.NaN(), `null`},
		{math.Inf(-1), `null`},
		{[]byte("bytes\xff"), `"bytes` + "\ufffd\""},
		{json.Number("12"), `12`},
		{json.Number("1.50"), `1.5`},
		{json.Number("12345678901234567890"), `1.2345678901234567e+19`},
		{errors.New("broken"), `"broken"`},
		{fmt.Errorf("while reading: %w", errors.New("broken")), `"while reading: broken"`},
		{time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), `"2026-11-28T12:00:00Z"`},
		{1500 * time.Millisecond, `"1.5s"`},
		{big.NewInt(7), `"7"`},
		{panics{1}, `"<monitoring.panics>"`},
		{(*fails)(nil), `"<*monitoring.fails>"`},
		{&three, `3`},
		{(*int)(nil), `null`},
		{[]any{1, "two", nil, []string{}}, `[1,"two",null,[]]`},
		{[2]bool{true, false}, `[true,false]`},
		{map[int]string{1: "one"}, `{"1":"one"}`},
		{Fields{"a": Fields{"b": 1}}, `{"a":{"b":1}}`},
		{map[string]any(nil), `{}`},
		{row{"x", 0, "no", []int{1}, 2}, `{"name":"x","count":0,"Plain":[1]}`},
		{complex(1, 2), `"(1+2i)"`},
		{itself, `"<monitoring.loop>"`},
	} {
		if got := encodedValue(c.value); got != c.want {
			t.Errorf("%T %v: %s, want %s", c.value, c.value, got, c.want)
		}
	}
	if text := encodedValue(cycle); !json.Valid([]byte(text)) || !strings.Contains(text, "<map>") {
		t.Errorf("a cycle: %s", text)
	}
}

func TestTagsAreStringsAndNumbers(t *testing.T) {
	tags := Tags{"s": "x", "n": 3, "f": 1.5, "b": true, "none": nil, "l": []int{1, 2}, "e": errors.New("full"), "u": uint8(4)}
	for _, given := range []Tags{tags, tags.plain()} {
		e := &encoder{buf: []byte{'{'}, most: maxBody}
		e.tags(given)
		var read struct{ Tags map[string]any }
		if err := json.Unmarshal(append(e.buf, '}'), &read); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"s": "x", "n": 3.0, "f": 1.5, "b": "true", "l": "[1,2]", "e": "full", "u": 4.0}
		if fmt.Sprint(read.Tags) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", read.Tags, want)
		}
	}
}

func encodedEvent(message string, fields Fields) []byte {
	e := &encoder{}
	e.encode("event", 1, `,"service":"s"`, "", func(e *encoder, whole bool) {
		e.text("message", message)
		if whole {
			e.context(fields)
		}
	})
	return append(e.buf, '}')
}

func TestTooLong(t *testing.T) {
	many := make([]string, 10_000)
	long := strings.Repeat("y", 60_000)
	for i := range many {
		many[i] = long
	}
	for name, line := range map[string][]byte{
		"message":  encodedEvent(strings.Repeat("é", 70_000), Fields{"rows": 5}),
		"context":  encodedEvent("short", Fields{"a": strings.Repeat("x", 70_000), "b": "stays"}),
		"key":      encodedEvent("short", Fields{strings.Repeat("k", 70_000): 1}),
		"strings":  encodedEvent("short", Fields{"many": many}),
		"integers": encodedEvent("short", Fields{"many": make([]int, 1_000_000)}),
	} {
		var read struct {
			Message   string
			Context   map[string]any
			Truncated bool
		}
		if err := json.Unmarshal(line, &read); err != nil || len(line) > maxBody+1 || !read.Truncated {
			t.Errorf("%s: %d bytes, truncated %v: %v", name, len(line), read.Truncated, err)
		}
		switch name {
		case "message":
			if len(read.Message) < 65_000 || read.Context["rows"] != 5.0 {
				t.Errorf("the message is cut to %d bytes, context %v", len(read.Message), read.Context)
			}
		case "context":
			if read.Context["b"] != "stays" || len(read.Context["a"].(string)) < 65_000 {
				t.Error("the longest string is cut, the others stay")
			}
		default:
			if read.Context != nil || read.Message != "short" {
				t.Errorf("%s: where no string is long, the context goes", name)
			}
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("message", "key", []byte("value"), 1.5, int64(-1), uint8(3))
	f.Add("\x00\xff\"\\\n", "", []byte{0xed, 0xa0, 0x80}, math.NaN(), int64(math.MaxInt64), uint8(12))
	f.Fuzz(func(t *testing.T, message, key string, value []byte, number float64, integer int64, times uint8) {
		long := strings.Repeat(message, int(times)*100)
		var nested any = value
		for i := uint8(0); i < times%16; i++ {
			nested = map[string]any{key: nested, "list": []any{number, integer}}
		}
		line := encodedEvent(long, Fields{key: nested, key + "n": number, key + "i": integer, "u": uint64(integer)})
		if len(line) > maxBody+1 {
			t.Fatalf("%d bytes", len(line))
		}
		if !utf8.Valid(line) || !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
		if bytes.ContainsAny(line, "\n\x00") || bytes.Contains(line, []byte(`\u0000`)) && !bytes.Contains(line, []byte(`\\u0000`)) {
			t.Fatalf("a newline or a NUL: %q", line)
		}
		var read map[string]any
		if err := json.Unmarshal(line, &read); err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(strings.ToValidUTF8(message, "\ufffd"), "\x00", "\ufffd")
		if times == 1 && read["truncated"] == nil && collapse(read["message"].(string)) != collapse(strings.Repeat(want, 100)) {
			t.Fatalf("%q became %q", message, read["message"])
		}
	})
}

// collapse makes one U+FFFD of a run of them: how many stand for invalid bytes is open.
func collapse(text string) string {
	for strings.Contains(text, "\ufffd\ufffd") {
		text = strings.ReplaceAll(text, "\ufffd\ufffd", "\ufffd")
	}
	return text
}
