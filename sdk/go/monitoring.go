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
	"container/list"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	statsPace = 3 * time.Second      // so long after a message its stats line follows
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

// ---- opening ----

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
		o.buffer = defaultBuffer
		if messages, err := strconv.Atoi(os.Getenv("WAFERMON_BUFFER")); err == nil && messages > 0 {
			o.buffer = messages
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
	waiting := -1 // not known yet
	for tries := 0; waiting != 0; tries++ {
		if s.state.TryLock() { // who writes to a disk that hangs holds it
			s.mu.Lock()
			waiting = s.inbox.len() + s.kept()
			s.mu.Unlock()
			s.state.Unlock()
		}
		switch {
		case waiting > 0 && ctx.Err() != nil:
			return fmt.Errorf("monitoring: %d messages are waiting: %w", waiting, ctx.Err())
		case ctx.Err() != nil && tries > 100:
			return fmt.Errorf("monitoring: the sender is busy: %w", ctx.Err())
		case waiting != 0:
			s.kick()
			time.Sleep(time.Millisecond)
		}
	}
	return nil
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
	if number, err := strconv.Atoi(level); err == nil && number >= 10 && number <= 50 {
		return [...]string{"debug", "info", "warning", "error", "critical"}[number/10-1]
	}
	switch strings.ToLower(level) {
	case "debug":
		return "debug"
	case "info":
		return "info"
	case "warning", "warn":
		return "warning"
	case "error", "err":
		return "error"
	case "critical", "fatal":
		return "critical"
	}
	return ""
}

// LogEvent says that something happened. The level is debug, info, warning, error or critical, in upper case too; warn,
// err, fatal and the numbers 10 to 50 are taken as what they mean.
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
