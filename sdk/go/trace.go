//go:build unix

package monitoring

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

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

// traceparent is the scope in W3C's notation, for children that know that alone. The SHA-256 of a job's id stands for
// what that notation can't say: its beginning for the trace, what follows for a span where none is open.
func (c *scope) traceparent() string {
	if c.traceID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(c.traceID))
	trace, span := c.traceID, c.spanID
	if !w3cForm.MatchString(trace) || strings.Trim(trace, "0") == "" {
		trace = hex.EncodeToString(sum[:16])
	}
	if span == "" {
		span = hex.EncodeToString(sum[16:24])
	}
	return "00-" + trace + "-" + span + "-01"
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
	duration := time.Since(s.started).Microseconds()
	s.logger.put("span_end", time.Now(), s.scope, func(e *encoder, whole bool) {
		e.text("status", status)
		e.text("name", s.name)
		e.number("start", s.started.UnixMicro())
		e.number("duration", duration)
		if s.parent != "" {
			e.text("parent_id", s.parent)
		}
		if whole {
			e.tags(all)
		}
	})
}

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

// ChildEnv is the environment for a child process, so that it falls into the current trace, under the current span:
// WAFERMON_TRACE_ID and WAFERMON_SPAN_ID, and TRACEPARENT for what knows that alone.
func (l Logger) ChildEnv() []string { return l.scope().environ(os.Environ()) }
