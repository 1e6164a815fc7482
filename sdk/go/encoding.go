//go:build unix

package monitoring

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Fields are the context of an event: strings, numbers, booleans, nil, times, errors, and maps, slices and structs of
// them, eight levels deep. Their order is not kept.
type Fields map[string]any

// Tags of a metric or a span are strings and numbers; nil is left out and whatever else comes along becomes text.
type Tags map[string]any

// An encoder builds one message in its buffer.
type encoder struct {
	buf  []byte
	most int // bytes that a string is cut to
}

var encoders = sync.Pool{New: func() any { return &encoder{buf: make([]byte, 0, 1024)} }}

// encode makes a message without its client, its seq and its closing brace, short enough for any line. `write` adds the
// message's own fields; it leaves out context and tags where `whole` is false.
func (e *encoder) encode(kind string, ts int64, origin, scope string, write func(e *encoder, whole bool)) {
	pass := func(most int, whole bool) int {
		e.most = most
		e.buf = append(append(append(e.buf[:0], `{"type":"`...), kind...), `","ts":`...)
		e.buf = strconv.AppendInt(e.buf, ts, 10)
		e.buf = append(append(e.buf, origin...), scope...)
		write(e, whole)
		return len(e.buf)
	}
	if pass(maxBody, true) <= maxBody {
		return
	}
	const mark = `,"truncated":true`
	least, most, room := shortest, maxBody, maxBody-len(mark)
	whole := pass(least, true) <= room
	for most-least > 1 { // the longest strings are cut, all to the same length: the greatest that fits
		if middle := (least + most) / 2; pass(middle, whole) <= room {
			least = middle
		} else {
			most = middle
		}
	}
	pass(least, whole)
	e.buf = append(e.buf, mark...)
}

// fragment is what goes into lines as it is: fields, each with a comma before it.
func fragment(write func(*encoder)) string {
	e := &encoder{buf: []byte{'{'}, most: maxText}
	write(e)
	if len(e.buf) == 1 {
		return ""
	}
	return "," + string(e.buf[1:])
}

// full says that a message has become too long already: what follows need not be encoded.
func (e *encoder) full() bool { return len(e.buf) > maxBody }

// key begins a field; a comma comes before all but an object's first.
func (e *encoder) key(name string) {
	if e.buf[len(e.buf)-1] != '{' {
		e.buf = append(e.buf, ',')
	}
	most := e.most
	e.most = maxBody
	e.str(name)
	e.most = most
	e.buf = append(e.buf, ':')
}

// field begins one of the message's own fields, whose name needs no escapes.
func (e *encoder) field(name string) {
	comma := `,"`
	if e.buf[len(e.buf)-1] == '{' {
		comma = `"`
	}
	e.buf = append(append(append(e.buf, comma...), name...), `":`...)
}

func (e *encoder) text(name, value string) {
	e.field(name)
	e.str(value)
}

func (e *encoder) number(name string, value int64) {
	e.field(name)
	e.buf = strconv.AppendInt(e.buf, value, 10)
}

// unescaped are the bytes that stand for themselves within a string.
var unescaped = func() (plain [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

func (e *encoder) str(s string) {
	if cut := e.most; len(s) > cut {
		for cut > e.most-utf8.UTFMax && cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	b, done := append(e.buf, '"'), 0
	for i := 0; i < len(s); {
		c := s[i]
		if unescaped[c] {
			i++
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		if size > 1 {
			i += size
			continue
		}
		b = append(b, s[done:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == 0 || c >= utf8.RuneSelf:
			b = append(b, "\ufffd"...)
		default:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		done = i
	}
	e.buf = append(append(b, s[done:]...), '"')
}

func (e *encoder) integer(n int64) {
	if n < -exact || n > exact {
		e.str(strconv.FormatInt(n, 10))
		return
	}
	e.buf = strconv.AppendInt(e.buf, n, 10)
}

func (e *encoder) unsigned(n uint64) {
	if n > exact {
		e.str(strconv.FormatUint(n, 10))
		return
	}
	e.buf = strconv.AppendUint(e.buf, n, 10)
}

// float writes the shortest text that reads back equal; JSON has none for what is not finite.
func (e *encoder) float(f float64, bits int) {
	size := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		e.buf = append(e.buf, "null"...)
	case f == math.Trunc(f) && size <= exact && (f != 0 || !math.Signbit(f)):
		e.buf = strconv.AppendInt(e.buf, int64(f), 10)
	case size == 0 || size >= 1e-6 && size <= exact: // beyond, what looks like an integer would have to be exact
		e.buf = strconv.AppendFloat(e.buf, f, 'f', -1, bits)
	default:
		e.buf = strconv.AppendFloat(e.buf, f, 'e', -1, bits)
	}
}

// measured writes a field that must be a number; what JSON has no number for is spelled out.
func (e *encoder) measured(name string, f float64) {
	e.field(name)
	switch {
	case math.IsNaN(f):
		e.str("NaN")
	case math.IsInf(f, 0):
		e.str(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+") + "inity")
	default:
		e.float(f, 64)
	}
}

func (e *encoder) value(v any, depth int) {
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, "null"...)
	case string:
		e.str(v)
	case bool:
		e.buf = strconv.AppendBool(e.buf, v)
	case int:
		e.integer(int64(v))
	case int64:
		e.integer(v)
	case float64:
		e.float(v, 64)
	case Fields:
		e.object(v, depth)
	case map[string]any:
		e.object(v, depth)
	default:
		e.other(v, depth)
	}
}

// object writes the fields of a container at this depth: that of a context is 1.
func (e *encoder) object(fields map[string]any, depth int) {
	if depth > maxDepth {
		e.str("<map>") // of a constant text: so a caller's literal need not be allocated
		return
	}
	e.buf = append(e.buf, '{')
	for name, value := range fields {
		if e.full() {
			break
		}
		e.key(name)
		e.value(value, depth+1)
	}
	e.buf = append(e.buf, '}')
}

// nameless stands for a value that can't be told: it is nested too deep, or its own methods panic.
func (e *encoder) nameless(v any) { e.str(fmt.Sprintf("<%T>", v)) }

// other writes a value of any other type, whatever its own methods do.
func (e *encoder) other(v any, depth int) {
	mark := len(e.buf)
	defer func() {
		if recover() != nil {
			e.buf = e.buf[:mark]
			e.nameless(v)
		}
	}()
	switch v := v.(type) {
	case []byte:
		e.str(string(v))
	case json.Number:
		e.jsonNumber(v)
	case error:
		e.str(v.Error())
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			text = []byte(err.Error())
		}
		e.str(string(text))
	case fmt.Stringer:
		e.str(v.String())
	default:
		e.reflected(reflect.ValueOf(v), depth)
	}
}

func (e *encoder) jsonNumber(text json.Number) {
	if n, err := text.Int64(); err == nil {
		e.integer(n)
	} else if f, err := text.Float64(); err == nil {
		e.float(f, 64)
	} else {
		e.str(string(text))
	}
}

func (e *encoder) reflected(v reflect.Value, depth int) {
	kind := v.Kind()
	switch {
	case v.CanInt():
		e.integer(v.Int())
	case v.CanUint():
		e.unsigned(v.Uint())
	case v.CanFloat():
		e.float(v.Float(), v.Type().Bits())
	case kind == reflect.Bool:
		e.value(v.Bool(), depth)
	case kind == reflect.String:
		e.str(v.String())
	case kind == reflect.Chan || kind == reflect.Func || kind == reflect.UnsafePointer || v.CanComplex():
		e.str(fmt.Sprint(v.Interface()))
	case kind != reflect.Struct && kind != reflect.Array && v.IsNil():
		e.buf = append(e.buf, "null"...)
	case depth > maxDepth:
		e.nameless(v.Interface())
	case kind == reflect.Pointer && v.Elem().Kind() == reflect.Pointer:
		e.value(v.Elem().Interface(), depth+1) // a pointer may lead to itself
	case kind == reflect.Pointer:
		e.value(v.Elem().Interface(), depth)
	case kind == reflect.Slice || kind == reflect.Array:
		e.buf = append(e.buf, '[')
		for i := 0; i < v.Len() && !e.full(); i++ {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			e.value(v.Index(i).Interface(), depth+1)
		}
		e.buf = append(e.buf, ']')
	default:
		e.buf = append(e.buf, '{')
		e.members(v, depth)
		e.buf = append(e.buf, '}')
	}
}

// members writes those of a map, or the exported ones of a struct under the names that encoding/json would use.
func (e *encoder) members(v reflect.Value, depth int) {
	if v.Kind() == reflect.Map {
		for each := v.MapRange(); each.Next() && !e.full(); {
			e.key(fmt.Sprint(each.Key().Interface()))
			e.value(each.Value().Interface(), depth+1)
		}
		return
	}
	for i := 0; i < v.NumField() && !e.full(); i++ {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		if field.IsExported() && name != "-" {
			e.key(name)
			e.value(v.Field(i).Interface(), depth+1)
		}
	}
}

// context writes an event's fields, tags those of a metric or a span; empty ones are left out.
func (e *encoder) context(fields Fields) {
	if len(fields) > 0 {
		e.field("context")
		e.object(fields, 1)
	}
}

func (e *encoder) tags(tags Tags) {
	if len(tags) == 0 {
		return
	}
	e.field("tags")
	e.buf = append(e.buf, '{')
	for name, value := range tags {
		if e.full() {
			break
		}
		if value != nil {
			e.key(name)
			e.tag(value)
		}
	}
	e.buf = append(e.buf, '}')
}

func (e *encoder) tag(value any) {
	mark := len(e.buf)
	e.value(value, 2)
	if first := e.buf[mark]; first == 't' || first == 'f' || first == '{' || first == '[' {
		text := string(e.buf[mark:])
		e.buf = e.buf[:mark]
		e.str(text)
	}
}

// plain copies tags, so that what comes of them later is what they were.
func (t Tags) plain() Tags {
	plain := make(Tags, len(t))
	for name, value := range t {
		switch value.(type) {
		case nil:
		case string, int, int64, float64:
			plain[name] = value
		default:
			e := &encoder{most: maxBody}
			e.tag(value)
			var read any
			_ = json.Unmarshal(e.buf, &read) // a string, a number or null, as just written
			plain[name] = read
		}
	}
	return plain
}
