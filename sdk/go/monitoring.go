//go:build unix

// Package monitoring is the Go SDK of wafermon: events, metrics, progress, resources and spans for the sidecar.
//
// What it promises:
//
//   - A call never waits for the network and never fails because of it; only a programming error (an unknown level, a
//     percent of 300) is an error, at the call. What a call was given is fixed when it returns.
//   - A message is kept until the sidecar acknowledges it. While that is away, up to a buffer of messages waits in
//     memory; what does not fit goes to spill files, and only when those are full or can't be written is a message
//     dropped, which is counted.
//   - All goroutines may share an SDK.
//   - [SDK.Stats] adds up: called = acked + rejected + dropped + waiting + handed over.
//
// How it does so: a call encodes its message and puts it into an inbox. One goroutine, started by the first call, looks
// into the inbox every few milliseconds while there is work, numbers the messages and spills what finds no room. It is
// woken by a call only after it has gone to sleep, since waking it costs more than the call itself. Each connection has
// a goroutine that reads and one that writes, so that nothing else waits for a socket.
//
// Go runs nothing at the end of a program by itself: defer [SDK.Close] in main.
package monitoring

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"container/list"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

// Version is that of this SDK.
const Version = "2.0.0"

const (
	defaultURL    = "tcp://127.0.0.1:7411"
	defaultBuffer = 1000
	// What may wait to be sent, in bytes; as many again may be sent and unacknowledged, and wait in the inbox.
	maxBytes = 4 << 20
	// A line without client and seq, which take the rest of its 65,536 bytes.
	maxBody  = 65_536 - 64
	maxText  = 255 // bytes of a host's name, and of an id
	maxReply = 1 << 20
	maxFile  = 1 << 20 // bytes of a spill file
	maxFiles = 64      // of them
	maxMarks = 1000    // spill files that a stats line tells of

	silence = 5 * time.Second        // without a byte, with something owed, a connection is dead
	grace   = 100 * time.Millisecond // that a burst at the very start may wait for the first welcome before it spills
	never   = time.Duration(math.MaxInt64)

	tick      = 5 * time.Millisecond // how often a busy sender looks at everything
	idleTicks = 10                   // so often in vain, and it sleeps
	statsPace = 5 * time.Second      // at least so long after a message its stats line follows
	stall     = 100 * time.Millisecond

	chunk      = 64 << 10 // bytes of a write
	frameLeast = 1 << 10
	frameMost  = 256 << 10

	exact    = 1 << 53 // integers beyond it are sent as text
	maxDepth = 8       // containers nested deeper become text
	shortest = 64      // cutting strings below so many bytes gains nothing
)

// What errors wrap, for [errors.Is].
var (
	ErrInvalid     = errors.New("invalid argument")
	ErrUnknownSpan = errors.New("no such span is open")
)

var (
	serviceForm     = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	spanIDForm      = regexp.MustCompile(`^[0-9a-f]{16}$`)
	w3cForm         = regexp.MustCompile(`^[0-9a-f]{32}$`)
	traceparentForm = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}`)
	urlForm         = regexp.MustCompile(`^(?:unix://(/.+)|(tcp|tls)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?)$`)
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("monitoring: "+format+": %w", append(args, ErrInvalid)...)
}

func randomHex(bytes int) string {
	random := make([]byte, bytes)
	_, _ = rand.Read(random) // it doesn't fail on the systems that Go supports
	return hex.EncodeToString(random)
}

// ---- encoding ----

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

func (e *encoder) text(name, value string) {
	e.key(name)
	e.str(value)
}

func (e *encoder) number(name string, value int64) {
	e.key(name)
	e.buf = strconv.AppendInt(e.buf, value, 10)
}

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
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
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
	case f == math.Trunc(f) && size < 1e15 && (f != 0 || !math.Signbit(f)):
		e.buf = strconv.AppendInt(e.buf, int64(f), 10)
	case size == 0 || size >= 1e-6 && size < 1e21:
		e.buf = strconv.AppendFloat(e.buf, f, 'f', -1, bits)
	default:
		e.buf = strconv.AppendFloat(e.buf, f, 'e', -1, bits)
	}
}

// measured writes a field that must be a number; what JSON has no number for is spelled out.
func (e *encoder) measured(name string, f float64) {
	e.key(name)
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
		e.nameless(fields)
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
		e.key("context")
		e.object(fields, 1)
	}
}

func (e *encoder) tags(tags Tags) {
	if len(tags) == 0 {
		return
	}
	e.key("tags")
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

// ---- queues ----

// A fifo holds messages one after the other in one stretch of memory.
type fifo struct {
	data  []byte
	items []item
	head  int // items before it have left
}

type item struct {
	from, to int
	own      bool // a stats line, which counts in no figure
	settled  bool // rejected by the sidecar: neither sent nor counted any more
}

func (q *fifo) len() int { return len(q.items) - q.head }

// size is that of all messages in bytes.
func (q *fifo) size() int {
	if q.len() == 0 {
		return 0
	}
	return len(q.data) - q.items[q.head].from
}

func (q *fifo) at(i int) *item { return &q.items[q.head+i] }

func (q *fifo) bytes(i int) []byte { return q.data[q.at(i).from:q.at(i).to] }

func (q *fifo) push(message []byte) {
	from := len(q.data)
	q.data = append(q.data, message...)
	q.items = append(q.items, item{from: from, to: len(q.data)})
}

// pop removes the oldest message; what it took is reused now and then, and a great burst's memory is given back.
func (q *fifo) pop() {
	q.head++
	if q.len() == 0 {
		q.clear()
	} else if from := q.items[q.head].from; from > len(q.data)/2 {
		q.data = q.data[:copy(q.data, q.data[from:])]
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
		for i := range q.items {
			q.items[i].from -= from
			q.items[i].to -= from
		}
	}
}

func (q *fifo) clear() {
	q.data, q.items, q.head = q.data[:0], q.items[:0], 0
	if cap(q.data) > maxBytes/4 {
		q.data, q.items = nil, nil
	}
}

// ---- trace and span ----

// A scope is trace and span in which a call is made, also as the JSON that goes into its line.
type scope struct{ traceID, spanID, text string }

func newScope(traceID, spanID string) *scope {
	return &scope{traceID, spanID, fragment(func(e *encoder) {
		for _, id := range [][2]string{{"trace_id", traceID}, {"span_id", spanID}} {
			if id[1] != "" {
				e.text(id[0], id[1])
			}
		}
	})}
}

// inherited is the scope of the environment; a given trace id wins.
func inherited(traceID string) *scope {
	trace, span := os.Getenv("WAFERMON_TRACE_ID"), os.Getenv("WAFERMON_SPAN_ID")
	parent := traceparentForm.FindStringSubmatch(os.Getenv("TRACEPARENT"))
	if parent != nil && trace == "" && span == "" && strings.Trim(parent[1], "0") != "" && strings.Trim(parent[2], "0") != "" {
		trace, span = parent[1], parent[2]
	}
	if checkTraceID(trace) != nil {
		trace = ""
	}
	if traceID != "" {
		trace = traceID
	}
	if !spanIDForm.MatchString(span) {
		span = ""
	}
	return newScope(trace, span)
}

// environ is an environment for a child process that falls into the scope.
func (c *scope) environ(environ []string) []string {
	variables := []string{"WAFERMON_TRACE_ID=", c.traceID, "WAFERMON_SPAN_ID=", c.spanID, "TRACEPARENT=", c.traceparent()}
	kept := make([]string, 0, len(environ)+3)
	for _, variable := range environ {
		if !strings.HasPrefix(variable, variables[0]) && !strings.HasPrefix(variable, variables[2]) && !strings.HasPrefix(variable, variables[4]) {
			kept = append(kept, variable)
		}
	}
	for i := 0; i < len(variables); i += 2 {
		if variables[i+1] != "" {
			kept = append(kept, variables[i]+variables[i+1])
		}
	}
	return kept
}

// traceparent is the scope in W3C's notation, for children that know that alone; a job id that is no W3C trace id is
// represented by the beginning of its SHA-256.
func (c *scope) traceparent() string {
	if c.traceID == "" || c.spanID == "" {
		return ""
	}
	trace := c.traceID
	if !w3cForm.MatchString(trace) {
		sum := sha256.Sum256([]byte(trace))
		trace = hex.EncodeToString(sum[:16])
	}
	return "00-" + trace + "-" + c.spanID + "-01"
}

// A Span is a stretch of work with a beginning and an end, from [SDK.Start].
type Span struct {
	logger  Logger
	scope   *scope
	outer   *Span // of the context that it was started in
	place   *list.Element
	name    string
	parent  string
	tags    Tags
	started time.Time
	ended   atomic.Bool
}

// ID is the span's id, 16 hex digits.
func (s *Span) ID() string { return s.scope.spanID }

// TraceID is the id of the trace that the span belongs to.
func (s *Span) TraceID() string { return s.scope.traceID }

// End closes the span: with status error where an error is given that is not nil, or where a panic passes through, else
// ok. It is made for `defer span.End(&err)`; only the first End counts.
func (s *Span) End(errs ...*error) {
	status := "ok"
	for _, err := range errs {
		if err != nil && *err != nil {
			status = "error"
		}
	}
	panicked := recover()
	if panicked != nil {
		status = "error"
	}
	s.end(status, nil)
	if panicked != nil {
		panic(panicked)
	}
}

// EndWith closes the span with status "ok" or "error" and with tags that join those of its start.
func (s *Span) EndWith(status string, tags Tags) error {
	if status != "ok" && status != "error" {
		return invalid("a span ends ok or error, not %q", status)
	}
	s.end(status, tags)
	return nil
}

func (s *Span) end(status string, tags Tags) {
	if !s.ended.CompareAndSwap(false, true) {
		return
	}
	all := tags.plain()
	for name, value := range s.tags {
		if _, there := all[name]; !there {
			all[name] = value
		}
	}
	s.logger.put("span_end", time.Now(), s.scope, func(e *encoder, whole bool) {
		e.text("status", status)
		e.text("name", s.name)
		e.number("start", s.started.UnixMicro())
		e.number("duration", time.Since(s.started).Microseconds())
		if s.parent != "" {
			e.text("parent_id", s.parent)
		}
		if whole {
			e.tags(all)
		}
	})
}

// ---- calls ----

// A Logger makes calls in the span of a context ([SDK.In]), or, as that of an [SDK], in the span opened last by
// [SDK.StartSpan].
type Logger struct {
	sdk  *SDK
	span *Span
}

type spanKey struct{ sdk *SDK }

// In gives the calls within a context: what they log carries the span that [SDK.Start] put into it.
func (s *SDK) In(ctx context.Context) Logger {
	span, _ := ctx.Value(spanKey{s}).(*Span)
	return Logger{s, span}
}

func (l Logger) scope() *scope {
	for span := l.span; span != nil; span = span.outer {
		if !span.ended.Load() {
			return span.scope
		}
	}
	return l.sdk.current.Load()
}

func (l Logger) put(kind string, ts time.Time, scope *scope, write func(e *encoder, whole bool)) {
	e := encoders.Get().(*encoder)
	e.encode(kind, ts.UnixMicro(), l.sdk.origin, scope.text, write)
	l.sdk.accept(e.buf)
	if cap(e.buf) <= maxBody {
		encoders.Put(e)
	}
}

func levelName(level string) string {
	switch level {
	case "debug", "info", "warning", "error", "critical":
		return level
	}
	switch strings.ToLower(level) {
	case "debug", "10":
		return "debug"
	case "info", "20":
		return "info"
	case "warning", "warn", "30":
		return "warning"
	case "error", "err", "40":
		return "error"
	case "critical", "fatal", "50":
		return "critical"
	}
	return ""
}

// LogEvent says that something happened. The level is debug, info, warning, error or critical, in upper case too; warn,
// err, fatal and 10, 20 … 50 are taken as what they mean.
func (l Logger) LogEvent(level, message string, fields ...Fields) error {
	name := levelName(level)
	if name == "" {
		return invalid("unknown level %q", level)
	}
	l.put("event", time.Now(), l.scope(), func(e *encoder, whole bool) {
		e.text("level", name)
		e.text("message", message)
		if len(fields) > 0 && whole {
			e.context(fields[0])
		}
	})
	return nil
}

// A MetricOption is a [Unit], a [Kind] or [Tags].
type MetricOption interface{ metricOption() }

// Unit of a metric: UCUM where there is one (s, By, Cel, %).
type Unit string

// Kind of a metric.
type Kind string

// A gauge, which is the default, has a value; a counter says how many more there are since the last call.
const (
	Gauge   Kind = "gauge"
	Counter Kind = "counter"
)

func (Unit) metricOption() {}
func (Kind) metricOption() {}
func (Tags) metricOption() {}

// LogMetric tells a measured number: LogMetric("read", 1.5, monitoring.Unit("MiBy/s"), monitoring.Tags{"disk": "sda"}).
func (l Logger) LogMetric(name string, value float64, options ...MetricOption) error {
	if name == "" {
		return invalid("a metric has a name")
	}
	var unit Unit
	var kind Kind
	var tags Tags
	for _, option := range options {
		switch option := option.(type) {
		case Unit:
			unit = option
		case Kind:
			kind = option
		case Tags:
			tags = option
		}
	}
	if kind != "" && kind != Gauge && kind != Counter {
		return invalid("a metric is a gauge or a counter, not %q", kind)
	}
	l.put("metric", time.Now(), l.scope(), func(e *encoder, whole bool) {
		e.text("name", name)
		e.measured("value", value)
		if unit != "" {
			e.text("unit", string(unit))
		}
		if kind == Counter {
			e.text("kind", string(kind))
		}
		if whole {
			e.tags(tags)
		}
	})
	return nil
}

// LogProgress says how far a job is, 0 to 100; the statuses done, failed and cancelled end it, the default is running.
func (l Logger) LogProgress(jobID string, percent float64, status ...string) error {
	how := "running"
	if len(status) > 0 && status[0] != "" {
		how = status[0]
	}
	switch {
	case checkTraceID(jobID) != nil:
		return checkTraceID(jobID)
	case !(percent >= 0 && percent <= 100):
		return invalid("a percent is a number from 0 to 100, not %v", percent)
	case utf8.RuneCountInString(how) > 64:
		return invalid("a status has 1 to 64 characters, not %q", how)
	}
	l.put("progress", time.Now(), l.scope(), func(e *encoder, _ bool) {
		e.text("job_id", jobID)
		e.measured("percent", percent)
		e.text("status", how)
	})
	return nil
}

// LogResource measures this process: CPU as percent of one core since the last time, resident bytes, bytes read and
// written on disk. Linux counts no network by process.
func (l Logger) LogResource() error {
	cpu, mem, disk := l.sdk.measure()
	return l.LogResourceOf(cpu, mem, disk, math.NaN())
}

// LogResourceOf tells percent of one core, resident bytes, bytes of disk and of network; NaN leaves one out.
func (l Logger) LogResourceOf(cpu, mem, disk, net float64) error {
	l.put("resource", time.Now(), l.scope(), func(e *encoder, _ bool) {
		for i, value := range [...]float64{cpu, mem, disk, net} {
			if !math.IsNaN(value) && !math.IsInf(value, 0) {
				e.measured([...]string{"cpu", "mem", "disk", "net"}[i], value)
			}
		}
	})
	return nil
}

// ChildEnv is the environment for a child process, so that it falls into the current trace, under the current span:
// WAFERMON_TRACE_ID and WAFERMON_SPAN_ID, and TRACEPARENT for what knows that alone.
func (l Logger) ChildEnv() []string { return l.scope().environ(os.Environ()) }

// A SpanOption is a [TraceID] or [Tags].
type SpanOption interface{ spanOption() }

// TraceID is the trace of a span that is not the current one: 1 to 128 printable ASCII characters without space.
type TraceID string

func (TraceID) spanOption() {}
func (Tags) spanOption()    {}

// Start opens a span inside that of the context, and puts it into the context that it returns; calls of [SDK.In] with
// that carry it. It never fails: of a name or a trace id that can't be right, the sdk says so once on stderr and makes one.
func (s *SDK) Start(ctx context.Context, name string, options ...SpanOption) (context.Context, *Span) {
	var traceID TraceID
	var tags Tags
	for _, option := range options {
		switch option := option.(type) {
		case TraceID:
			traceID = option
		case Tags:
			tags = option
		}
	}
	if name == "" {
		s.say("a span has a name: it is called unnamed")
		name = "unnamed"
	}
	if traceID != "" && checkTraceID(string(traceID)) != nil {
		s.say("not a trace id: %q", traceID)
		traceID = ""
	}
	span := s.In(ctx).begin(name, string(traceID), tags)
	return context.WithValue(ctx, spanKey{s}, span), span
}

// WithTrace gives a context in which calls and spans belong to this trace.
func (s *SDK) WithTrace(ctx context.Context, traceID string) (context.Context, error) {
	if err := checkTraceID(traceID); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, spanKey{s}, &Span{logger: s.Logger, scope: newScope(traceID, "")}), nil
}

func (l Logger) begin(name, traceID string, tags Tags) *Span {
	around := l.scope()
	if traceID == "" {
		traceID = around.traceID
	}
	if traceID == "" {
		traceID = randomHex(16)
	}
	span := &Span{logger: l, scope: newScope(traceID, randomHex(8)), outer: l.span, name: name, parent: around.spanID, tags: tags.plain(), started: time.Now()}
	l.put("span_start", span.started, span.scope, func(e *encoder, whole bool) {
		e.text("name", name)
		if span.parent != "" {
			e.text("parent_id", span.parent)
		}
		if whole {
			e.tags(span.tags)
		}
	})
	return span
}

func checkTraceID(traceID string) error {
	good := len(traceID) >= 1 && len(traceID) <= 128
	for i := 0; i < len(traceID) && good; i++ {
		good = traceID[i] > ' ' && traceID[i] <= '~'
	}
	if !good {
		return invalid("a trace or job id is 1 to 128 printable ASCII characters without space, not %q", traceID)
	}
	return nil
}

// StartSpan opens a span inside the current one and makes it the current one of the SDK: what is logged without a
// context carries it. An empty trace id is the current one. Programs with many goroutines use [SDK.Start].
func (s *SDK) StartSpan(name, traceID string, tags Tags) (spanID string, err error) {
	if name == "" {
		return "", invalid("a span has a name")
	}
	if traceID != "" {
		if err := checkTraceID(traceID); err != nil {
			return "", err
		}
	}
	s.spansLock.Lock()
	defer s.spansLock.Unlock()
	span := s.begin(name, traceID, tags)
	span.place = s.open.PushBack(span.scope)
	s.spans[span.ID()] = span
	s.current.Store(span.scope)
	return span.ID(), nil
}

// EndSpan closes a span of [SDK.StartSpan], out of order too; an empty status is ok, tags join those of its start.
func (s *SDK) EndSpan(spanID, status string, tags Tags) error {
	if status == "" {
		status = "ok"
	}
	s.spansLock.Lock()
	defer s.spansLock.Unlock()
	span := s.spans[spanID]
	if span == nil {
		return fmt.Errorf("monitoring: %w: %q", ErrUnknownSpan, spanID)
	}
	if err := span.EndWith(status, tags); err != nil {
		return err
	}
	delete(s.spans, spanID)
	s.open.Remove(span.place)
	s.current.Store(s.open.Back().Value.(*scope))
	return nil
}

// SetTraceID makes what is logged from here on, without a context, belong to this trace. A span that is open ends in
// its own.
func (s *SDK) SetTraceID(traceID string) error {
	if err := checkTraceID(traceID); err != nil {
		return err
	}
	s.spansLock.Lock()
	defer s.spansLock.Unlock()
	for _, place := range []*list.Element{s.open.Front(), s.open.Back()} {
		place.Value = newScope(traceID, place.Value.(*scope).spanID)
	}
	s.current.Store(s.open.Back().Value.(*scope))
	return nil
}

// ---- connections ----

// A phase of a stream's connection.
type phase int

const (
	resting  phase = iota // no connection; connect() begins one once retryAt has come
	dialing               // a goroutine looks the host up, connects and agrees on TLS
	greeting              // the hello is sent, the welcome is to come
	up                    // from the welcome on
)

// A link is one connection, with the goroutines that read and write it.
type link struct {
	net.Conn
	sdk   *SDK
	heard atomic.Int64  // when the last byte came
	ended chan struct{} // closed when nothing more can be read
}

// Read notes that the sidecar is alive: a byte is enough.
func (k *link) Read(into []byte) (int, error) {
	n, err := k.Conn.Read(into)
	if n > 0 {
		k.heard.Store(int64(k.sdk.now()))
	}
	return n, err
}

// cut closes the connection at once. A goodbye, which TLS would wait to be able to say, is left out.
func (k *link) cut() {
	if secure, is := k.Conn.(*tls.Conn); is {
		_ = secure.NetConn().Close()
	} else {
		_ = k.Close()
	}
}

// farewell shuts our side down, lets the sidecar's last words be read, and closes: an unread reply would make of the
// close a reset.
func (k *link) farewell(within time.Duration) {
	patience := time.AfterFunc(within, k.cut)
	defer patience.Stop()
	if half, is := k.Conn.(interface{ CloseWrite() error }); is {
		_ = half.CloseWrite()
	}
	<-k.ended
	k.cut()
}

// A stream is one client's messages on their way: numbered, sent, and kept until they are acknowledged. Its fields
// belong to whoever holds the SDK's state lock.
type stream struct {
	sdk    *SDK
	client string
	file   *spillFile // that it delivers; nil: the SDK's own stream

	window  fifo
	last    int64 // the greatest seq given
	highest int64 // the greatest that ever went to a socket
	handed  int   // messages of the window that the present connection has had
	owed    int   // messages of the window that count as waiting

	phase    phase
	link     *link
	hangUp   context.CancelFunc // ends a dialing
	retryAt  time.Duration
	owing    time.Duration // since when something is owed to us
	welcomes int64
	failures int
	stats    bool // the sidecar of the last welcome takes stats lines
	frame    int  // the greatest frame that it takes; 0: none
}

// number gives a message its seq, for ever, and keeps it until that is acknowledged.
func (t *stream) number(body []byte, own bool) int64 {
	t.sdk.line = appendLine(t.sdk.line[:0], body, t.client, t.last+1)
	t.keep(t.sdk.line, own)
	return t.last
}

func appendLine(to, body []byte, client string, seq int64) []byte {
	to = append(append(append(to, body...), `,"client":"`...), client...)
	return append(strconv.AppendInt(append(to, `","seq":`...), seq, 10), "}\n"...)
}

func (t *stream) keep(line []byte, own bool) {
	if t.window.len() == 0 {
		t.owing = t.sdk.now()
	}
	t.last++
	t.window.push(line)
	t.window.at(t.window.len() - 1).own = own
	if !own {
		t.owed++
	}
	t.sdk.news.Broadcast()
}

// connect begins a connection, if there is none and the last failure is long enough ago.
func (t *stream) connect(now time.Duration) {
	if t.phase != resting || now < t.retryAt {
		return
	}
	ctx, hangUp := context.WithTimeout(context.Background(), silence)
	t.phase, t.hangUp = dialing, hangUp
	go t.dial(ctx)
}

func (t *stream) dial(ctx context.Context) {
	s := t.sdk
	conn, err := s.dial(ctx)
	k := &link{Conn: conn, sdk: s, ended: make(chan struct{})}
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(silence))
		_, err = conn.Write(s.hello(t.client))
		_ = conn.SetWriteDeadline(time.Time{})
	}
	s.guarded(func() {
		t.hangUp()
		if err != nil || t.phase != dialing {
			if conn != nil {
				k.cut()
			}
			t.lose()
			return
		}
		t.phase, t.link, t.owing = greeting, k, s.now()
		k.heard.Store(int64(t.owing))
		go t.read(k)
		go t.write(k)
	})
	s.kick()
}

// lose closes the connection at once; what is unacknowledged stays for the next one.
func (t *stream) lose() {
	if t.link != nil {
		t.link.cut()
	}
	if t.hangUp != nil {
		t.hangUp()
	}
	most := 100 * time.Millisecond << min(t.failures, 10)
	if most > 30*time.Second {
		most = 30 * time.Second
	}
	jitter, _ := strconv.ParseUint(randomHex(4), 16, 64)
	t.phase, t.link, t.handed = resting, nil, 0
	t.retryAt = t.sdk.now() + time.Duration(float64(most)*float64(jitter)/(1<<32))
	t.failures++
	t.sdk.news.Broadcast()
}

// judge loses a connection from which no byte has come for too long while something is owed.
func (t *stream) judge(now time.Duration) {
	if t.link == nil || (t.phase == up && t.window.len() == 0) {
		return
	}
	if now-t.sdk.looked > silence/2 { // the process was stopped: its replies may lie there unread
		t.owing = now
	}
	if heard := time.Duration(t.link.heard.Load()); now-heard > silence && now-t.owing > silence {
		t.lose()
	}
}

// read takes the sidecar's replies until the connection's end.
func (t *stream) read(k *link) {
	s := t.sdk
	defer close(k.ended)
	replies := bufio.NewScanner(k)
	replies.Buffer(make([]byte, 4096), maxReply)
	replies.Split(func(data []byte, _ bool) (int, []byte, error) { // half a reply at the end is none
		end := bytes.IndexByte(data, '\n')
		return end + 1, data[:max(0, end)], nil
	})
	for replies.Scan() {
		s.guarded(func() {
			if t.link == k && !t.answer(replies.Bytes()) {
				t.lose() // it speaks another protocol
			}
		})
		s.kick() // there may be room, or an end, that somebody waits for
	}
	if err := replies.Err(); err != nil && strings.Contains(err.Error(), "tls: ") {
		s.say("the sidecar ends TLS: %v", err)
	}
	t.broken(k)
}

// broken loses a connection, unless it is lost already.
func (t *stream) broken(k *link) {
	t.sdk.guarded(func() {
		if t.link == k {
			t.lose()
		}
	})
	t.sdk.kick()
}

type reply struct {
	Type     string
	Version  *int `json:"v"`
	Seq      *int64
	Acked    *int64
	Code     string
	Detail   string
	Compress string
	MaxFrame int `json:"max_frame"`
	Features []string
}

// answer does what a reply says; false where no sidecar says so.
func (t *stream) answer(line []byte) bool {
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return false
	}
	switch {
	case r.Type == "ack" && r.Seq != nil:
		t.settle(*r.Seq)
	case r.Type == "ack" || r.Type == "welcome" && (r.Acked == nil || r.Version != nil && *r.Version != 2):
		return false
	case r.Type == "welcome" && t.phase == greeting:
		t.phase, t.failures, t.welcomes = up, 0, t.welcomes+1
		t.stats, t.frame = false, 0
		for _, feature := range r.Features {
			t.stats = t.stats || feature == "stats"
		}
		if r.Compress == "zlib" && t.sdk.compress {
			t.frame = frameMost
			if r.MaxFrame > 0 {
				t.frame = min(frameMost, r.MaxFrame)
			}
		}
		t.settle(*r.Acked)
		t.sdk.news.Broadcast()
	case r.Type == "error" && r.Seq != nil:
		t.reject(*r.Seq)
	case r.Type == "error":
		if r.Code == "bad_frame" { // nothing of it was taken: the same lines go again, as they are
			t.sdk.compress = false
			t.sdk.say("no more compression: the sidecar refuses: %s %s", r.Code, r.Detail)
			return false
		}
		t.sdk.say("the sidecar refuses: %s", strings.TrimSpace(r.Code+" "+r.Detail))
	}
	return true
}

// settle forgets what is acknowledged; what never went to a socket can't be.
func (t *stream) settle(acked int64) {
	for t.window.len() > 0 {
		oldest := t.window.at(0)
		seq := t.last - int64(t.window.len()) + 1
		if !oldest.settled && (seq > acked || seq > t.highest) {
			return
		}
		if !oldest.own && !oldest.settled {
			t.owed--
			t.sdk.counts.Acked++
		}
		t.window.pop()
		t.handed = max(0, t.handed-1)
	}
}

func (t *stream) reject(seq int64) {
	i := seq - (t.last - int64(t.window.len()) + 1)
	if i < 0 || i >= int64(t.window.len()) || t.window.at(int(i)).settled {
		return
	}
	refused := t.window.at(int(i))
	refused.settled = true
	if !refused.own {
		t.owed--
		t.sdk.counts.Rejected++
	}
	t.settle(0)
}

// write sends what the window has for this connection, from the welcome on.
func (t *stream) write(k *link) {
	var lines []byte
	var press presser
	for {
		count, most := 0, 0
		t.sdk.guarded(func() {
			for t.link == k && count == 0 {
				if t.phase != up || t.handed == t.window.len() {
					t.sdk.news.Wait()
					continue
				}
				most = t.frame
				lines, count = t.take(lines[:0])
			}
		})
		if count == 0 {
			return
		}
		out := lines
		if len(lines) >= frameLeast && len(lines) <= most {
			out = press.frame(lines, count)
		}
		if _, err := k.Write(out); err != nil {
			t.broken(k)
			return
		}
	}
}

// take appends the next lines, as many as go at once, and counts them as sent.
func (t *stream) take(to []byte) ([]byte, int) {
	most, count := chunk, 0
	if t.frame > 0 {
		most = t.frame
	}
	for ; t.handed < t.window.len(); t.handed++ {
		line := t.window.at(t.handed)
		if line.settled {
			continue
		}
		if len(to) > 0 && len(to)+line.to-line.from > most {
			break
		}
		seq := t.last - int64(t.window.len()-t.handed) + 1
		switch {
		case line.own:
		case seq > t.highest:
			t.sdk.counts.Sent++
		default:
			t.sdk.counts.Resent++
		}
		t.highest = max(seq, t.highest)
		to = append(to, t.window.bytes(t.handed)...)
		count++
	}
	return to, count
}

// A presser makes frames of whole lines, one after the other in the same memory.
type presser struct {
	zlib   *zlib.Writer
	packed bytes.Buffer
	out    []byte
}

func (p *presser) frame(lines []byte, count int) []byte {
	p.packed.Reset()
	if p.zlib == nil {
		p.zlib, _ = zlib.NewWriterLevel(&p.packed, zlib.BestSpeed)
	}
	p.zlib.Reset(&p.packed)
	_, _ = p.zlib.Write(lines)
	_ = p.zlib.Close()
	header := `{"type":"frame","codec":"zlib","bytes":%d,"raw":%d,"lines":%d}` + "\n"
	p.out = append(fmt.Appendf(p.out[:0], header, p.packed.Len(), len(lines), count), p.packed.Bytes()...)
	return p.out
}

// ---- spill ----

// A spillFile holds whole lines of a client of its own; it is locked as long as its writer lives and wants it.
type spillFile struct {
	*os.File
	path   string
	client string
	count  int
	size   int
}

func createSpillFile(directory, service, client string) (*spillFile, error) {
	path := filepath.Join(directory, fmt.Sprintf("%s.%d.%s.ldjson", service, os.Getpid(), client))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND|syscall.O_NOFOLLOW, 0o660)
	if err != nil {
		return nil, err
	}
	_ = file.Chmod(0o660) // whatever the umask: in a setgid folder the group is the sidecar's
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return &spillFile{File: file, path: path, client: client}, nil
}

// add writes lines, `count` of them; how many got there. One that a full disk cuts is taken back.
func (f *spillFile) add(lines []byte, count int) int {
	written, err := f.Write(lines)
	if err != nil {
		written = bytes.LastIndexByte(lines[:written], '\n') + 1
		count = bytes.Count(lines[:written], []byte{'\n'})
		_ = f.Truncate(int64(f.size + written))
	}
	f.size += written
	f.count += count
	return count
}

// claim takes it for sending; false when somebody else has.
func (f *spillFile) claim() bool {
	if os.Rename(f.path, f.path+".taken") != nil {
		return false
	}
	f.path += ".taken"
	return true
}

// leave gives it to whoever takes it up.
func (f *spillFile) leave() {
	if free := strings.TrimSuffix(f.path, ".taken"); free != f.path {
		_ = os.Rename(f.path, free)
	}
	_ = f.Close()
}

func (f *spillFile) remove() {
	_ = os.Remove(f.path)
	_ = f.Close()
}

// A mark says how far a spill file's stream goes.
type mark struct {
	client string
	last   int
}

// A spool is an SDK's spill files, oldest first: the newest is written, only closed ones are sent.
type spool struct {
	directory string
	service   string
	files     []*spillFile
	writing   bool // into the newest
	retryAt   time.Duration
	marks     []mark // of all there ever were, or the newest of them
	lines     []byte
}

// write appends messages; how many there was room for.
func (p *spool) write(bodies *fifo, now time.Duration) int {
	done := 0
	for done < bodies.len() && now >= p.retryAt {
		if !p.writing && !p.begin() {
			p.retryAt = now + time.Second
			break
		}
		file := p.files[len(p.files)-1]
		p.lines = p.lines[:0]
		count := 0
		for done+count < bodies.len() {
			before := len(p.lines)
			p.lines = appendLine(p.lines, bodies.bytes(done+count), file.client, int64(file.count+count+1))
			if file.size+len(p.lines) > maxFile {
				p.lines = p.lines[:before]
				break
			}
			count++
		}
		added := file.add(p.lines, count)
		done += added
		p.marks[len(p.marks)-1].last = file.count
		p.writing = done == bodies.len()
		if added < count {
			p.retryAt = now + time.Second // the disk is full
		}
		if file.count == 0 {
			file.remove()
			p.files, p.marks = p.files[:len(p.files)-1], p.marks[:len(p.marks)-1]
			p.writing = false
		}
	}
	return done
}

// begin opens a new file to write; one less than the most, since one may be on its way.
func (p *spool) begin() bool {
	if len(p.files) >= maxFiles-1 {
		return false
	}
	file, err := p.create(randomHex(8))
	if err != nil {
		return false
	}
	p.files = append(p.files, file)
	p.marks = append(p.marks, mark{file.client, 0})
	if len(p.marks) > maxMarks {
		p.marks = p.marks[:copy(p.marks, p.marks[1:])]
	}
	return true
}

// leave writes what close could not deliver to a file of the SDK's own client; how many messages, without stats lines.
func (p *spool) leave(window *fifo, client string) int {
	room := maxFiles * maxFile
	for _, file := range p.files {
		room -= file.size
	}
	p.lines = p.lines[:0]
	var own []bool
	for i := 0; i < window.len() && len(p.lines)+len(window.bytes(i)) <= room; i++ {
		if !window.at(i).settled {
			p.lines = append(p.lines, window.bytes(i)...)
			own = append(own, window.at(i).own)
		}
	}
	if len(own) == 0 {
		return 0
	}
	file, err := p.create(client)
	if err != nil {
		return 0
	}
	if file.add(p.lines, len(own)) == 0 {
		file.remove()
		return 0
	}
	file.leave()
	left := 0
	for _, stats := range own[:file.count] {
		if !stats {
			left++
		}
	}
	return left
}

func (p *spool) create(client string) (*spillFile, error) {
	const common, writable, reachable = "/var/spool/wafermon", 2, 1
	private := fmt.Sprintf("/tmp/wafermon-%d", os.Getuid())
	directory := p.directory
	if directory == "" {
		directory = common
		if syscall.Access(common, writable|reachable) != nil {
			directory = private
		}
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	if directory == private {
		found, err := os.Lstat(private)
		if err != nil {
			return nil, err
		}
		owner, known := found.Sys().(*syscall.Stat_t)
		if !found.IsDir() || found.Mode().Perm()&0o022 != 0 || !known || int(owner.Uid) != os.Getuid() {
			return nil, fmt.Errorf("%s belongs to somebody else", private)
		}
	}
	return createSpillFile(directory, p.service, client)
}

// ---- the SDK ----

// The life of an SDK.
type life int

const (
	fresh   life = iota // nothing was called yet
	running             // the sender is at work
	closing             // Close was called
	over                // calls are counted as dropped
)

// An SDK is one application's connection to its sidecar. All goroutines may share it.
type SDK struct {
	Logger
	service string
	host    string
	origin  string // service, host and pid as they are on every line
	token   string
	network string
	address string
	tls     *tls.Config
	buffer  int
	began   time.Time

	current   atomic.Pointer[scope]
	spansLock sync.Mutex
	spans     map[string]*Span // of StartSpan
	open      list.List        // their scopes; the first is that of the process

	measuring sync.Mutex
	measured  time.Time
	used      time.Duration

	saying sync.Mutex
	said   map[string]bool

	// What calls touch.
	mu      sync.Mutex
	life    life
	started time.Duration
	closeAt time.Duration
	inbox   fifo
	called  int64
	refused int64 // calls that found no room, or came after the end
	asleep  bool  // the sender waits to be woken
	stuck   bool  // the sender did not come for a long while

	// What the sender and the connections touch; taken before mu.
	state    sync.Mutex
	news     *sync.Cond
	main     *stream
	courier  *stream // of a spill file
	spool    spool
	taken    fifo // from the inbox, not yet looked at
	waiting  fifo
	overflow fifo
	line     []byte
	counts   Stats
	reported int64 // dropped messages that a report has told of
	told     int64 // calls that a stats line has told of
	statsAt  time.Duration
	final    int64 // seq of the closing stats line
	lost     int64 // messages that Close could leave nowhere
	looked   time.Duration
	quiet    int // ticks since something happened
	compress bool

	wake chan struct{}
	done chan struct{}
}

// Stats are the state and the counts. At rest Called = Acked + Rejected + Dropped + Waiting + HandedOver.
type Stats struct {
	State      string `json:"state"`       // connected, disconnected, or overflow while the buffer is full
	Called     int64  `json:"called"`      // messages that were asked for
	Sent       int64  `json:"sent"`        // went to a socket
	Acked      int64  `json:"acked"`       // acknowledged by the sidecar
	Rejected   int64  `json:"rejected"`    // refused by the sidecar
	Dropped    int64  `json:"dropped"`     // found no room anywhere, or came after Close
	Spilled    int64  `json:"spilled"`     // written to a spill file
	Waiting    int64  `json:"waiting"`     // still with the SDK, in memory or in its spill files
	HandedOver int64  `json:"handed_over"` // left in spill files for the sidecar
	Resent     int64  `json:"resent"`      // went to a socket again
	Reconnects int64  `json:"reconnects"`  // welcomes but the first
}

// An Option of [Open]; what is given wins over the environment.
type Option func(*options)

type options struct {
	url, traceID, spillDir, token string
	buffer                        int
	given                         struct{ traceID, buffer bool }
}

// WithURL is the sidecar's address: tcp://host:port, unix:///path or tls://host:port (else WAFERMON_URL, else
// tcp://127.0.0.1:7411).
func WithURL(url string) Option { return func(o *options) { o.url = url } }

// WithTraceID is the trace of everything that names no other (else WAFERMON_TRACE_ID, TRACEPARENT).
func WithTraceID(traceID string) Option {
	return func(o *options) { o.traceID, o.given.traceID = traceID, true }
}

// WithBuffer says how many messages may wait in memory (else WAFERMON_BUFFER, else 1000).
func WithBuffer(messages int) Option {
	return func(o *options) { o.buffer, o.given.buffer = messages, true }
}

// WithSpillDir is where messages go that find no room in memory (else WAFERMON_SPILL_DIR, else /var/spool/wafermon if it
// is writable, else /tmp/wafermon-UID).
func WithSpillDir(directory string) Option { return func(o *options) { o.spillDir = directory } }

// WithToken is what the sidecar's listener asks for (else WAFERMON_TOKEN).
func WithToken(token string) Option { return func(o *options) { o.token = token } }

func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// Open makes an SDK. The service says who is speaking: 1 to 128 of A-Z a-z 0-9 . _ - : (else WAFERMON_SERVICE,
// OTEL_SERVICE_NAME). It fails only where an argument can't be right: the connection is made later, by itself.
func Open(service string, with ...Option) (*SDK, error) {
	var o options
	for _, option := range with {
		option(&o)
	}
	service = first(service, os.Getenv("WAFERMON_SERVICE"), os.Getenv("OTEL_SERVICE_NAME"))
	if !serviceForm.MatchString(service) || service == "wafermon" {
		return nil, invalid("a service is 1 to 128 of A-Z a-z 0-9 . _ - : and not wafermon, not %q", service)
	}
	if o.given.traceID {
		if err := checkTraceID(o.traceID); err != nil {
			return nil, err
		}
	}
	if o.given.buffer && o.buffer < 1 {
		return nil, invalid("a buffer holds at least one message, not %d", o.buffer)
	}
	if !o.given.buffer {
		o.buffer, _ = strconv.Atoi(os.Getenv("WAFERMON_BUFFER"))
		if o.buffer < 1 {
			o.buffer = defaultBuffer
		}
	}
	s := &SDK{service: service, buffer: o.buffer, token: first(o.token, os.Getenv("WAFERMON_TOKEN")), closeAt: never, statsAt: never}
	s.Logger.sdk = s
	s.began, s.measured, s.used = time.Now(), time.Now(), cpuTime()
	s.wake, s.done = make(chan struct{}, 1), make(chan struct{})
	s.spans, s.said = map[string]*Span{}, map[string]bool{}
	s.news = sync.NewCond(&s.state)
	s.main = &stream{sdk: s, client: randomHex(8)}
	s.spool = spool{directory: first(o.spillDir, os.Getenv("WAFERMON_SPILL_DIR")), service: service}
	s.open.PushBack(inherited(o.traceID))
	s.current.Store(s.open.Back().Value.(*scope))
	s.host, _ = os.Hostname()
	s.origin = fragment(func(e *encoder) {
		e.text("service", service)
		e.text("host", s.host)
		e.number("pid", int64(os.Getpid()))
	})
	switch os.Getenv("WAFERMON_COMPRESS") {
	case "zlib", "zstd": // the standard library has no zstd
		s.compress = true
	}
	if disabled := strings.ToLower(os.Getenv("WAFERMON_DISABLED")); disabled != "" && disabled != "0" && disabled != "false" && disabled != "no" {
		s.life = over
		close(s.done)
	}
	s.aim(first(o.url, os.Getenv("WAFERMON_URL"), defaultURL))
	return s, nil
}

// aim takes the sidecar's address; a bad one is said once, and the default serves.
func (s *SDK) aim(url string) {
	parts := urlForm.FindStringSubmatch(url)
	if parts != nil && parts[5] != "" {
		if port, _ := strconv.Atoi(parts[5]); port < 1 || port > 65535 {
			parts = nil
		}
	}
	if parts == nil {
		s.say("not a sidecar's url: %q; using %s", url, defaultURL)
		parts = urlForm.FindStringSubmatch(defaultURL)
	}
	if parts[1] != "" {
		s.network, s.address = "unix", parts[1]
		return
	}
	host := first(parts[3], parts[4])
	s.network, s.address = "tcp", net.JoinHostPort(host, first(parts[5], map[string]string{"tcp": "7411", "tls": "7413"}[parts[2]]))
	if parts[2] == "tls" {
		s.tls = s.tlsConfig(host)
	}
}

// tlsConfig reads the authorities at once; the client's certificate at each connection, since it may be renewed.
func (s *SDK) tlsConfig(host string) *tls.Config {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	authorities, cert, key := os.Getenv("WAFERMON_TLS_CA"), os.Getenv("WAFERMON_TLS_CERT"), os.Getenv("WAFERMON_TLS_KEY")
	if authorities != "" {
		config.RootCAs = x509.NewCertPool()
		pem, err := os.ReadFile(authorities)
		if err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			s.say("can't use WAFERMON_TLS_CA: %s: %v", authorities, err)
		}
	}
	if cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, first(key, cert))
			if err != nil {
				s.say("can't use WAFERMON_TLS_CERT and _KEY: %v", err)
			}
			return &pair, err
		}
	}
	return config
}

func (s *SDK) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, s.network, s.address)
	if err != nil || s.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, s.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() == nil {
			s.say("no TLS with the sidecar: %v", err)
		}
		return nil, err
	}
	return secure, nil
}

func (s *SDK) hello(client string) []byte {
	e := &encoder{buf: []byte(`{"v":2,"type":"hello"`), most: 512}
	e.text("client", client)
	e.buf = append(e.buf, s.origin...)
	e.text("sdk", "go/"+Version)
	e.buf = append(e.buf, `,"ack":true`...)
	if s.token != "" {
		e.text("token", s.token)
	}
	s.state.Lock()
	if s.compress {
		e.buf = append(e.buf, `,"compress":["zlib"]`...)
	}
	s.state.Unlock()
	return append(e.buf, "}\n"...)
}

func (s *SDK) now() time.Duration { return time.Since(s.began) }

// say writes one line to stderr; what comes before its colon is said once.
func (s *SDK) say(format string, args ...any) {
	topic, _, _ := strings.Cut(format, ":")
	s.saying.Lock()
	defer s.saying.Unlock()
	if !s.said[topic] {
		s.said[topic] = true
		fmt.Fprintf(os.Stderr, "wafermon: "+format+"\n", args...)
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure tells this process's CPU since the last time, its memory and its disk bytes; NaN where the system doesn't.
func (s *SDK) measure() (cpu, mem, disk float64) {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	now, used := time.Now(), cpuTime()
	cpu, mem, disk = 100*float64(used-s.used)/float64(now.Sub(s.measured)), math.NaN(), math.NaN()
	cpu = math.Round(cpu*1000) / 1000
	s.measured, s.used = now, used
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident float64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err == nil {
			mem = resident * float64(os.Getpagesize())
		}
	}
	if counts, err := os.ReadFile("/proc/self/io"); err == nil {
		var read, written float64
		for _, line := range strings.Split(string(counts), "\n") {
			_, _ = fmt.Sscanf(line, "read_bytes: %g", &read)
			_, _ = fmt.Sscanf(line, "write_bytes: %g", &written)
		}
		disk = read + written
	}
	return cpu, mem, disk
}

// accept takes an encoded message.
func (s *SDK) accept(body []byte) {
	s.mu.Lock()
	s.called++
	if s.life == over || s.inbox.size()+len(body) > maxBytes && !s.roomFor(len(body)) {
		s.refused++
		s.mu.Unlock()
		return
	}
	s.inbox.push(body)
	wake := s.asleep || s.inbox.size() > maxBytes/4
	s.asleep = false
	if s.life == fresh {
		s.life, s.started = running, s.now()
		go s.run()
	}
	s.mu.Unlock()
	if wake {
		s.kick()
	}
}

// roomFor waits, where messages come faster than the disk takes them, a moment for the sender; once in vain, and nobody
// waits until that is back.
func (s *SDK) roomFor(size int) bool {
	for end := s.now() + stall; s.life != over && s.inbox.size()+size > maxBytes; {
		s.stuck = s.stuck || s.now() > end
		if s.stuck {
			return false
		}
		s.mu.Unlock()
		s.kick()
		time.Sleep(tick / 20)
		s.mu.Lock()
	}
	return s.life != over
}

func (s *SDK) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// guarded does something with the state; whatever goes wrong in it must not end the program.
func (s *SDK) guarded(do func()) {
	s.state.Lock()
	defer s.state.Unlock()
	defer func() {
		if wrong := recover(); wrong != nil {
			s.say("internal error: %v", wrong)
		}
	}()
	do()
}

// run is the sender.
func (s *SDK) run() {
	timer := time.NewTimer(0)
	for {
		var farewells []*link
		var within time.Duration
		ended, pause := false, tick
		s.guarded(func() {
			now := s.now()
			moved := s.look(now)
			if farewells, within, ended = s.finish(now); !ended {
				pause = s.pause(now, moved)
			}
		})
		if ended {
			for _, k := range farewells {
				k.farewell(within)
			}
			close(s.done)
			return
		}
		if !timer.Stop() {
			select {
			case <-timer.C:
			default:
			}
		}
		timer.Reset(pause)
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// look does everything that is due; whether messages were taken from the inbox.
func (s *SDK) look(now time.Duration) bool {
	s.main.connect(now)
	s.main.judge(now)
	if s.main.phase == up && s.dropped() > s.reported {
		s.reportDrops()
	}
	s.advance()
	if s.taken.len() == 0 {
		s.mu.Lock()
		s.inbox, s.taken = s.taken, s.inbox
		s.stuck = false
		s.mu.Unlock()
	}
	patient := s.main.welcomes == 0 && s.main.failures == 0 && now < s.started+grace && s.taken.size() < maxBytes/2
	moved := false
	for s.taken.len() > 0 && !(patient && s.full()) {
		if s.full() {
			s.overflow.push(s.taken.bytes(0))
		} else {
			s.waiting.push(s.taken.bytes(0))
			s.advance()
		}
		s.taken.pop()
		moved = true
	}
	written := s.spool.write(&s.overflow, now)
	s.counts.Spilled += int64(written)
	s.counts.Dropped += int64(s.overflow.len() - written)
	s.overflow.clear()
	s.deliverSpill(now)
	s.tellStats(now)
	s.looked = now
	return moved
}

// advance numbers what waits, as far as the window has room for it.
func (s *SDK) advance() {
	for s.main.phase == up && s.waiting.len() > 0 && s.main.window.size() < maxBytes {
		s.main.number(s.waiting.bytes(0), false)
		s.waiting.pop()
	}
}

func (s *SDK) full() bool {
	return s.waiting.len() >= s.buffer || s.waiting.size()+maxBody >= maxBytes
}

func (s *SDK) dropped() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts.Dropped + s.refused
}

func (s *SDK) reportDrops() {
	count := s.dropped() - s.reported
	s.reported += count
	s.mu.Lock()
	s.called++
	s.mu.Unlock()
	e := &encoder{}
	e.encode("event", time.Now().UnixMicro(), s.origin, s.current.Load().text, func(e *encoder, _ bool) {
		e.text("level", "warning")
		e.text("message", fmt.Sprintf("%d messages dropped", count))
		e.context(Fields{"kind": "dropped", "count": count})
	})
	s.main.number(e.buf, false)
}

// tellStats sends a stats line some seconds after something was called, where the sidecar takes such.
func (s *SDK) tellStats(now time.Duration) {
	s.mu.Lock()
	if s.called != s.told && s.statsAt == never {
		s.statsAt = now + statsPace
	}
	s.mu.Unlock()
	if s.main.phase == up && s.main.stats && now >= s.statsAt {
		s.numberStats(false)
	}
}

// numberStats puts a stats line into the SDK's own stream.
func (s *SDK) numberStats(final bool) {
	s.mu.Lock()
	called, unsent := s.called, s.inbox.len()+s.taken.len()+s.waiting.len()
	s.mu.Unlock()
	s.told, s.statsAt = called, never
	dropped := s.dropped()
	e := &encoder{}
	e.encode("stats", time.Now().UnixMicro(), s.origin, "", func(e *encoder, _ bool) {
		e.number("v", 2)
		e.number("called", called)
		e.number("dropped", dropped)
		e.number("unsent", int64(unsent))
		e.number("last", s.main.last)
		e.key("streams")
		e.buf = append(e.buf, '[')
		for i, mark := range s.spool.marks {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			e.buf = append(e.buf, '{')
			e.text("client", mark.client)
			e.number("last", int64(mark.last))
			e.buf = append(e.buf, '}')
		}
		e.buf = append(e.buf, ']')
		if final {
			e.buf = append(e.buf, `,"final":true`...)
		}
	})
	seq := s.main.number(e.buf, true)
	if final {
		s.final = seq
	}
}

// deliverSpill sends, while connected, closed spill files one by one, each over a connection of its own.
func (s *SDK) deliverSpill(now time.Duration) {
	if s.main.phase == up && s.courier == nil {
		s.spool.writing = s.spool.writing && s.full()
		closed := len(s.spool.files)
		if s.spool.writing {
			closed--
		}
		if closed > 0 {
			file := s.spool.files[0]
			s.spool.files = s.spool.files[:copy(s.spool.files, s.spool.files[1:])]
			s.deliver(file)
		}
	}
	if s.courier == nil {
		return
	}
	if s.main.phase == up {
		s.courier.connect(now)
	}
	s.courier.judge(now)
	if s.courier.window.len() == 0 {
		s.courier.lose()
		s.courier.file.remove()
		s.courier = nil
		s.kick() // there may be another
	}
}

func (s *SDK) deliver(file *spillFile) {
	lines := make([]byte, file.size)
	if _, err := file.ReadAt(lines, 0); err != nil || !file.claim() {
		s.counts.HandedOver += int64(file.count)
		_ = file.Close()
		return
	}
	s.courier = &stream{sdk: s, client: file.client, file: file}
	for _, line := range bytes.SplitAfter(lines, []byte{'\n'}) {
		if len(line) > 0 {
			s.courier.keep(line, false)
		}
	}
}

// kept counts the messages that the sender has taken and not yet settled.
func (s *SDK) kept() int {
	kept := s.taken.len() + s.waiting.len() + s.main.owed
	for _, file := range s.spool.files {
		kept += file.count
	}
	if s.courier != nil {
		kept += s.courier.owed
	}
	return kept
}

// pause is how long the sender may wait: a moment while there is work, else until something is due. Calls and replies
// wake it.
func (s *SDK) pause(now time.Duration, moved bool) time.Duration {
	s.quiet++
	if moved {
		s.quiet = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quiet < idleTicks || s.life == closing || s.inbox.len() > 0 || s.taken.len() > 0 {
		return tick
	}
	s.asleep = true
	pause := never
	if s.main.phase == up && s.main.stats {
		pause = s.statsAt - now
	}
	for _, t := range []*stream{s.main, s.courier} {
		switch {
		case t == nil || t == s.courier && s.main.phase != up:
		case t.phase == resting:
			pause = min(pause, t.retryAt-now)
		case t.phase != up || t.window.len() > 0:
			pause = min(pause, silence/10)
		}
	}
	return max(pause, time.Millisecond)
}

// finish ends the SDK when it is time to: it leaves the rest in a spill file, and gives the connections to say farewell
// to within a time.
func (s *SDK) finish(now time.Duration) (links []*link, within time.Duration, ended bool) {
	main := s.main
	s.mu.Lock()
	ending, closeAt, pending := s.life == closing, s.closeAt, s.inbox.len()
	s.mu.Unlock()
	if !ending {
		return nil, 0, false
	}
	if pending+s.taken.len()+s.waiting.len() == 0 && main.phase == up && main.stats && main.last != s.final {
		s.numberStats(true)
	}
	hopeful := main.phase == up || main.failures == 0
	if hopeful && pending+s.kept()+main.window.len() > 0 && now < closeAt {
		return nil, 0, false
	}
	s.mu.Lock()
	s.life = over
	s.mu.Unlock()
	links = s.hangUp()
	for _, queue := range []*fifo{&s.waiting, &s.taken, &s.inbox} { // nobody puts anything into the inbox any more
		for ; queue.len() > 0; queue.pop() {
			main.number(queue.bytes(0), false)
		}
	}
	if (main.stats || main.welcomes == 0) && main.last != s.final {
		s.numberStats(true)
	}
	s.handOver()
	s.news.Broadcast()
	return links, max(time.Millisecond, min(time.Second/2, closeAt-now)), true
}

// hangUp takes the connections from their streams.
func (s *SDK) hangUp() []*link {
	var links []*link
	for _, t := range []*stream{s.main, s.courier} {
		if t == nil {
			continue
		}
		if t.hangUp != nil {
			t.hangUp()
		}
		if t.link != nil {
			links = append(links, t.link)
		}
		t.link, t.phase, t.retryAt = nil, resting, never
	}
	return links
}

// handOver leaves everything that is not settled in spill files.
func (s *SDK) handOver() {
	main, wanted := s.main, int64(s.main.owed)
	left := int64(s.spool.leave(&main.window, main.client))
	s.lost = wanted - left
	s.counts.Spilled += left
	s.counts.Dropped += s.lost
	s.counts.HandedOver += left
	main.window.clear()
	main.owed = 0
	s.counts.HandedOver += int64(s.kept())
	if s.courier != nil {
		s.courier.file.leave()
		s.courier = nil
	}
	for _, file := range s.spool.files {
		file.leave()
	}
	s.spool.files = nil
}

// Stats tells the state and the counts.
func (s *SDK) Stats() Stats {
	for i := 0; i < 50 && s.unseen(); i++ { // what was called before is where it belongs
		s.kick()
		time.Sleep(time.Millisecond)
	}
	s.state.Lock()
	defer s.state.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.counts
	stats.Called, stats.Dropped = s.called, s.counts.Dropped+s.refused
	stats.Waiting = int64(s.inbox.len() + s.kept())
	stats.Reconnects = max(0, s.main.welcomes-1)
	switch {
	case s.full():
		stats.State = "overflow"
	case s.main.phase == up:
		stats.State = "connected"
	default:
		stats.State = "disconnected"
	}
	return stats
}

func (s *SDK) unseen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inbox.len() > 0 && s.life != over
}

// Flush waits until nothing is waiting, for 5 s where the context has no deadline. Its error says that something is.
func (s *SDK) Flush(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		waiting, locked := 0, s.state.TryLock() // who writes to a disk that hangs holds it
		if locked {
			s.mu.Lock()
			waiting = s.inbox.len() + s.kept()
			s.mu.Unlock()
			s.state.Unlock()
			if waiting == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("monitoring: %d messages are waiting: %w", waiting, ctx.Err())
		case <-time.After(time.Millisecond):
			s.kick()
		}
	}
}

func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// Close delivers what is waiting until the context ends, for 2 s where it has no deadline, and at once leaves the rest
// in a spill file where the sidecar is not there. An error says that messages were lost, or may still be: there was no
// place to leave them. Calls that follow are counted as dropped.
func (s *SDK) Close(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, 2*time.Second)
	defer cancel()
	s.mu.Lock()
	switch s.life {
	case fresh:
		s.life = over
		close(s.done)
	case running:
		s.life = closing
	}
	deadline, _ := ctx.Deadline()
	s.closeAt = min(s.closeAt, s.now()+time.Until(deadline))
	s.mu.Unlock()
	s.kick()
	select {
	case <-s.done:
	case <-ctx.Done(): // cancelled, perhaps before its deadline
		s.mu.Lock()
		s.closeAt = min(s.closeAt, s.now())
		s.mu.Unlock()
		s.kick()
		select {
		case <-s.done:
		case <-time.After(time.Second):
			return fmt.Errorf("monitoring: what is waiting can't be written to a spill file in time: %w", ctx.Err())
		}
	}
	if s.lost > 0 {
		return fmt.Errorf("monitoring: %d messages are lost: they can neither be delivered nor written to a spill file", s.lost)
	}
	return nil
}

// Closer is the SDK as an [io.Closer].
func (s *SDK) Closer() io.Closer { return closer{s} }

type closer struct{ sdk *SDK }

func (c closer) Close() error { return c.sdk.Close(context.Background()) }
