//go:build unix

package monitoring

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const nobody = "tcp://127.0.0.1:1" // nothing listens there

func TestOtherNamesOfLevels(t *testing.T) {
	for given, want := range map[string]string{
		"debug": "debug", "INFO": "info", "warn": "warning", "Warning": "warning", "err": "error", "FATAL": "critical",
		"10": "debug", "20": "info", "30": "warning", "40": "error", "50": "critical", "loud": "", "": "", "25": "info", "9": "", "51": "", "-20": "",
	} {
		if got := levelName(given); got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
}

func TestProgrammingErrors(t *testing.T) {
	sdk := open(t, nobody)
	_, startErr := sdk.StartSpan("", "", nil)
	_, traceErr := sdk.StartSpan("s", "a b", nil)
	_, withErr := sdk.WithTrace(context.Background(), "")
	_, serviceErr := Open("wafermon")
	_, bufferErr := Open("s", WithBuffer(0))
	_, openErr := Open("s", WithTraceID("a b"))
	for call, err := range map[string]error{
		"level": sdk.LogEvent("loud", "m"), "percent": sdk.LogProgress("j", 300), "not a number": sdk.LogProgress("j", math.NaN()),
		"job": sdk.LogProgress("a b", 3), "status": sdk.LogProgress("j", 3, strings.Repeat("x", 65)), "metric": sdk.LogMetric("", 1),
		"kind": sdk.LogMetric("n", 1, Kind("rate")), "span": startErr, "span's trace": traceErr, "trace": sdk.SetTraceID("ä"),
		"context's trace": withErr, "service": serviceErr, "buffer": bufferErr, "trace id": openErr,
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if err := sdk.EndSpan("0123456789abcdef", "", nil); !errors.Is(err, ErrUnknownSpan) {
		t.Error(err)
	}
	if called := sdk.Stats().Called; called != 0 {
		t.Errorf("%d calls count", called)
	}
}

func work(ctx context.Context, sdk *SDK, fail error) (err error) {
	ctx, span := sdk.Start(ctx, "work", Tags{"file": "x"})
	defer span.End(&err)
	mustBeNil(sdk.In(ctx).LogEvent("info", "inside"))
	inner, child := sdk.Start(ctx, "child")
	mustBeNil(sdk.In(inner).LogMetric("n", 1))
	mustBeNil(child.EndWith("ok", Tags{"rows": 7}))
	mustBeNil(sdk.In(inner).LogEvent("info", "after the child"))
	return fail
}

func mustBeNil(err error) {
	if err != nil {
		panic(err)
	}
}

func TestSpansOfContexts(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url(), WithTraceID("job-1"))
	failure := errors.New("failed")
	if err := work(context.Background(), sdk, failure); err != failure {
		t.Fatal(err)
	}
	mustLog(t, sdk.LogEvent("info", "outside"))
	flush(t, sdk)
	m := sidecar.all()
	work, child := m[0]["span_id"], m[2]["span_id"]
	for i, want := range []map[string]any{
		{"type": "span_start", "name": "work", "parent_id": nil},
		{"type": "event", "message": "inside", "span_id": work},
		{"type": "span_start", "name": "child", "parent_id": work},
		{"type": "metric", "span_id": child},
		{"type": "span_end", "span_id": child, "status": "ok", "parent_id": work},
		{"type": "event", "message": "after the child", "span_id": work},
		{"type": "span_end", "span_id": work, "status": "error", "start": m[0]["ts"]},
		{"type": "event", "message": "outside", "span_id": nil},
	} {
		want["trace_id"] = "job-1"
		for name, value := range want {
			if m[i][name] != value {
				t.Errorf("message %d: %s is %v, want %v", i, name, m[i][name], value)
			}
		}
	}
}

func TestPanicEndsASpanWithError(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	func() {
		defer func() {
			if got := recover(); got != "oh" {
				t.Errorf("the panic is %v", got)
			}
		}()
		_, span := sdk.Start(context.Background(), "work")
		defer span.End(nil)
		panic("oh")
	}()
	flush(t, sdk)
	if m := sidecar.all(); m[1]["status"] != "error" {
		t.Errorf("%v", m[1])
	}
}

func TestSpanEndsOnce(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	_, span := sdk.Start(context.Background(), "work")
	span.End()
	span.End()
	mustLog(t, span.EndWith("error", nil))
	flush(t, sdk)
	if n := len(sidecar.all()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestTraceOfAContext(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url(), WithTraceID("of-the-process"))
	ctx, err := sdk.WithTrace(context.Background(), "job-7")
	mustLog(t, err)
	mustLog(t, sdk.In(ctx).LogEvent("info", "m"))
	_, span := sdk.Start(ctx, "work")
	_, other := sdk.Start(ctx, "other", TraceID("job-8"))
	flush(t, sdk)
	m := sidecar.all()
	if m[0]["trace_id"] != "job-7" || m[0]["span_id"] != nil || m[1]["parent_id"] != nil || span.TraceID() != "job-7" {
		t.Errorf("%v", m)
	}
	if other.TraceID() != "job-8" || m[2]["trace_id"] != "job-8" || m[2]["span_id"] != other.ID() {
		t.Errorf("%v", m[2])
	}
}

func TestTwoSDKsHaveSpansOfTheirOwn(t *testing.T) {
	one, two := open(t, nobody), open(t, nobody)
	ctx, span := one.Start(context.Background(), "work")
	if one.In(ctx).scope().spanID != span.ID() || two.In(ctx).scope().spanID != "" {
		t.Error("a span of one is that of the other")
	}
}

// Spans that overlap, as those of many goroutines do, leave nothing behind.
func TestOverlappingSpansAreForgotten(t *testing.T) {
	sdk := open(t, nobody)
	last, err := sdk.StartSpan("first", "", nil)
	mustLog(t, err)
	for i := 0; i < 1000; i++ {
		next, err := sdk.StartSpan("next", "", nil)
		mustLog(t, err)
		mustLog(t, sdk.EndSpan(last, "", nil))
		last = next
	}
	mustLog(t, sdk.EndSpan(last, "error", Tags{"why": "full"}))
	if len(sdk.spans) != 0 || sdk.open.Len() != 1 || sdk.current.Load().spanID != "" {
		t.Errorf("%d spans, %d scopes", len(sdk.spans), sdk.open.Len())
	}
}

func TestChildEnv(t *testing.T) {
	t.Setenv("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	t.Setenv("WAFERMON_TRACE_ID", "")
	t.Setenv("WAFERMON_SPAN_ID", "")
	sdk := open(t, nobody)
	seen := func(l Logger) string {
		child := exec.Command("sh", "-c", `echo "$WAFERMON_TRACE_ID $WAFERMON_SPAN_ID $TRACEPARENT"`)
		child.Env = l.ChildEnv()
		output, err := child.Output()
		mustLog(t, err)
		return strings.TrimSpace(string(output))
	}
	const w3c = "4bf92f3577b34da6a3ce929d0e0e4736"
	if got := seen(sdk.Logger); got != w3c+" 00f067aa0ba902b7 00-"+w3c+"-00f067aa0ba902b7-01" {
		t.Errorf("inherited: %q", got)
	}
	id, err := sdk.StartSpan("work", "", nil)
	mustLog(t, err)
	if got := seen(sdk.Logger); got != w3c+" "+id+" 00-"+w3c+"-"+id+"-01" {
		t.Errorf("in a span: %q", got)
	}
	ctx, span := sdk.Start(context.Background(), "work", TraceID("job-4711"))
	got := strings.Fields(seen(sdk.In(ctx)))
	if len(got) != 3 || got[0] != "job-4711" || got[1] != span.ID() || len(got[2]) != 55 || got[2][36:52] != span.ID() {
		t.Fatalf("in a job: %q", got)
	}
	sum, err := exec.Command("sh", "-c", "printf job-4711 | sha256sum | cut -c1-32").Output()
	if want := strings.TrimSpace(string(sum)); err != nil || got[2][3:35] != want {
		t.Errorf("the trace of a job: %s, want %s: %v", got[2][3:35], want, err)
	}
	ctx, err = sdk.WithTrace(context.Background(), "job-4711")
	mustLog(t, err)
	if got := strings.Fields(seen(sdk.In(ctx))); len(got) != 2 || got[0] != "job-4711" || len(got[1]) != 55 {
		t.Errorf("without a span: %q", got)
	}
}

func TestManyGoroutines(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	const goroutines, calls = 20, 50
	var all sync.WaitGroup
	for g := 0; g < goroutines; g++ {
		all.Add(1)
		go func(g int) {
			defer all.Done()
			for i := 0; i < calls; i++ {
				ctx, span := sdk.Start(context.Background(), fmt.Sprint("goroutine ", g))
				mustBeNil(sdk.In(ctx).LogEvent("info", "m", Fields{"g": g, "span": span.ID()}))
				id, err := sdk.StartSpan("of the process", "", nil)
				mustBeNil(err)
				mustBeNil(sdk.LogResource())
				mustBeNil(sdk.EndSpan(id, "ok", nil))
				mustBeNil(sdk.SetTraceID(fmt.Sprint("trace-", g)))
				sdk.Stats()
				span.End(nil)
			}
		}(g)
	}
	all.Wait()
	flush(t, sdk)
	stats := sdk.Stats()
	assertLaw(t, stats)
	if stats.Acked != goroutines*calls*6 {
		t.Errorf("%+v", stats)
	}
	for _, m := range sidecar.all() {
		if context, is := m["context"].(map[string]any); is && context["span"] != m["span_id"] {
			t.Errorf("the event of another span: %v", m)
		}
	}
}

func TestResource(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	mustLog(t, sdk.LogResource())
	mustLog(t, sdk.LogResourceOf(12.5, math.NaN(), math.Inf(1), 7))
	flush(t, sdk)
	m := sidecar.all()
	if cpu, is := m[0]["cpu"].(float64); !is || cpu < 0 {
		t.Errorf("%v", m[0])
	}
	if _, linux := os.Stat("/proc/self/statm"); linux == nil && m[0]["mem"].(float64) < 1<<20 {
		t.Errorf("%v", m[0])
	}
	if m[1]["cpu"] != 12.5 || m[1]["net"] != 7.0 || m[1]["mem"] != nil || m[1]["disk"] != nil {
		t.Errorf("%v", m[1])
	}
}

func TestMetricOptions(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	mustLog(t, sdk.LogMetric("rows", 5, Counter, Unit("{row}"), Tags{"disk": "sda"}))
	mustLog(t, sdk.LogMetric("load", math.Inf(-1), Gauge))
	flush(t, sdk)
	m := sidecar.all()
	if m[0]["kind"] != "counter" || m[0]["unit"] != "{row}" || fmt.Sprint(m[0]["tags"]) != "map[disk:sda]" {
		t.Errorf("%v", m[0])
	}
	if m[1]["value"] != "-Infinity" || m[1]["kind"] != nil {
		t.Errorf("%v", m[1])
	}
}

func TestDisabled(t *testing.T) {
	t.Setenv("WAFERMON_DISABLED", "1")
	sdk := open(t, nobody)
	mustLog(t, sdk.LogEvent("info", "m"))
	flush(t, sdk)
	mustLog(t, sdk.Close(context.Background()))
	if stats := sdk.Stats(); stats.Called != 1 || stats.Dropped != 1 {
		t.Errorf("%+v", stats)
	}
}

// What a call was given is fixed when it returns.
func TestContentIsFixed(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	list, fields, tags := []int{1}, Fields{}, Tags{"list": []int{1}}
	fields["list"] = list
	mustLog(t, sdk.LogEvent("info", "m", fields))
	id, err := sdk.StartSpan("s", "", tags)
	mustLog(t, err)
	list[0], tags["list"] = 2, 2
	delete(fields, "list")
	mustLog(t, sdk.EndSpan(id, "", nil))
	flush(t, sdk)
	m := sidecar.all()
	if fmt.Sprint(m[0]["context"]) != "map[list:[1]]" || fmt.Sprint(m[2]["tags"]) != "map[list:[1]]" {
		t.Errorf("%v", m)
	}
}

func TestACallAllocatesOnceAtMost(t *testing.T) {
	sdk := open(t, newSidecar(t, manner{silent: true, reads: true}).url(), WithBuffer(1))
	fields, tags := Fields{"file": "lot-4711.dat", "rows": 1250, "ratio": 0.75, "ok": true}, Tags{"disk": "sda"}
	n := 1000
	for name, call := range map[string]func(){
		"event": func() { mustBeNil(sdk.LogEvent("info", "file read", fields)) },
		"literal": func() {
			n++
			mustBeNil(sdk.LogEvent("info", "file read", Fields{"rows": n, "file": "a.dat", "ok": true}))
		},
		"metric":   func() { mustBeNil(sdk.LogMetric("n", 1.5, Unit("s"), tags)) },
		"progress": func() { mustBeNil(sdk.LogProgress("job-1", 55.5, "running")) },
		"resource": func() { mustBeNil(sdk.LogResourceOf(1, 2, 3, 4)) },
	} {
		// What the sender does meanwhile counts too, so the least of some tries is the call's own.
		least := math.Inf(1)
		for try := 0; try < 5 && least > 1; try++ {
			least = math.Min(least, testing.AllocsPerRun(200, call))
			time.Sleep(10 * time.Millisecond)
		}
		if least > 1 {
			t.Errorf("%s: %v allocations", name, least)
		}
	}
}
