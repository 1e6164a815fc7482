// The conformance driver of the Go SDK: one JSON request per line on stdin, one JSON answer per line on stdout. The protocol
// is in ../../conformance/README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wafermon/monitoring"
)

var errUnsupported = errors.New("unsupported")

// Args are a request's, with the notations of the suite already read.
type Args map[string]any

type request struct {
	Call string `json:"call"`
	Args Args   `json:"args"`
}

type answer struct {
	OK     bool   `json:"ok"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// A driver carries out requests with the SDK opened last; earlier ones live on.
type driver struct {
	sdks []*monitoring.SDK
}

func main() {
	var d driver
	defer d.closeAll() // Go has no exit handlers
	requests := bufio.NewReaderSize(os.Stdin, 1<<16)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			return
		}
		result, err := d.carryOut(line)
		switch {
		case errors.Is(err, errExit):
			return
		case err != nil:
			_ = answers.Encode(answer{Error: err.Error()})
		default:
			_ = answers.Encode(answer{OK: true, Result: result})
		}
	}
}

func (d *driver) closeAll() {
	ended := make(chan struct{})
	for _, sdk := range d.sdks {
		go func(sdk *monitoring.SDK) {
			_ = sdk.Close(context.Background())
			ended <- struct{}{}
		}(sdk)
	}
	for range d.sdks {
		<-ended
	}
}

var errExit = errors.New("exit")

func (d *driver) carryOut(line []byte) (any, error) {
	var r request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	if err := decoder.Decode(&r); err != nil {
		return nil, err
	}
	if r.Call != "spawn" {
		for name, value := range r.Args {
			read, err := expand(value)
			if err != nil {
				return nil, err
			}
			r.Args[name] = read
		}
	}
	switch r.Call {
	case "exit":
		return nil, errExit
	case "pid":
		return os.Getpid(), nil
	case "kill_self":
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "sleep":
		seconds, err := r.Args.number("seconds")
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		return nil, err
	case "setenv":
		return nil, setenv(r.Args)
	case "open":
		return nil, d.open(r.Args)
	}
	if len(d.sdks) == 0 {
		return nil, errors.New("open comes first")
	}
	return call(d.sdks[len(d.sdks)-1], r.Call, r.Args)
}

func (d *driver) open(args Args) error {
	var options []monitoring.Option
	for name, option := range map[string]func(string) monitoring.Option{
		"url": monitoring.WithURL, "trace_id": monitoring.WithTraceID, "spill_dir": monitoring.WithSpillDir, "token": monitoring.WithToken,
	} {
		if args[name] != nil {
			text, err := args.text(name)
			if err != nil {
				return err
			}
			options = append(options, option(text))
		}
	}
	if args["buffer"] != nil {
		buffer, err := args.number("buffer")
		if err != nil {
			return err
		}
		options = append(options, monitoring.WithBuffer(int(buffer)))
	}
	service, err := args.optional("service")
	if err != nil {
		return err
	}
	sdk, err := monitoring.Open(service, options...)
	if err == nil {
		d.sdks = append(d.sdks, sdk)
	}
	return err
}

func call(sdk *monitoring.SDK, name string, args Args) (any, error) {
	switch name {
	case "log_event":
		return nil, logEvent(sdk, args)
	case "log_metric":
		return nil, logMetric(sdk, args)
	case "log_progress":
		return nil, logProgress(sdk, args)
	case "log_resource":
		return nil, logResource(sdk, args)
	case "start_span":
		return startSpan(sdk, args)
	case "end_span":
		return nil, endSpan(sdk, args)
	case "set_trace_id":
		traceID, err := args.text("trace_id")
		if err != nil {
			return nil, err
		}
		return nil, sdk.SetTraceID(traceID)
	case "get_stats":
		return sdk.Stats(), nil
	case "flush":
		ctx, cancel := args.timeout()
		defer cancel()
		return sdk.Flush(ctx) == nil, nil
	case "close":
		ctx, cancel := args.timeout()
		defer cancel()
		if err := sdk.Close(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err) // it tells of messages that were lost, which the stats do too
		}
		return nil, nil
	case "burst":
		return burst(sdk, args)
	case "spawn":
		return spawn(sdk, args)
	}
	return nil, errUnsupported
}

func logEvent(sdk *monitoring.SDK, args Args) error {
	level, err := args.text("level")
	if err != nil {
		return err
	}
	message, err := args.text("message")
	if err != nil {
		return err
	}
	context, err := args.object("context")
	if err != nil {
		return err
	}
	return sdk.LogEvent(level, message, context)
}

func logMetric(sdk *monitoring.SDK, args Args) error {
	name, err := args.text("name")
	if err != nil {
		return err
	}
	value, err := args.number("value")
	if err != nil {
		return err
	}
	unit, err := args.optional("unit")
	if err != nil {
		return err
	}
	kind, err := args.optional("kind")
	if err != nil {
		return err
	}
	tags, err := args.object("tags")
	if err != nil {
		return err
	}
	return sdk.LogMetric(name, value, monitoring.Unit(unit), monitoring.Kind(kind), monitoring.Tags(tags))
}

func logProgress(sdk *monitoring.SDK, args Args) error {
	jobID, err := args.text("job_id")
	if err != nil {
		return err
	}
	percent, err := args.number("percent")
	if err != nil {
		return err
	}
	status, err := args.optional("status")
	if err != nil {
		return err
	}
	return sdk.LogProgress(jobID, percent, status)
}

func logResource(sdk *monitoring.SDK, args Args) error {
	if len(args) == 0 {
		return sdk.LogResource()
	}
	var values [4]float64
	for i, name := range []string{"cpu", "mem", "disk", "net"} {
		values[i] = math.NaN()
		if args[name] != nil {
			value, err := args.number(name)
			if err != nil {
				return err
			}
			values[i] = value
		}
	}
	return sdk.LogResourceOf(values[0], values[1], values[2], values[3])
}

func startSpan(sdk *monitoring.SDK, args Args) (any, error) {
	name, err := args.text("name")
	if err != nil {
		return nil, err
	}
	traceID, err := args.optional("trace_id")
	if err != nil {
		return nil, err
	}
	tags, err := args.object("tags")
	if err != nil {
		return nil, err
	}
	return sdk.StartSpan(name, traceID, monitoring.Tags(tags))
}

func endSpan(sdk *monitoring.SDK, args Args) error {
	spanID, err := args.text("span_id")
	if err != nil {
		return err
	}
	status, err := args.optional("status")
	if err != nil {
		return err
	}
	tags, err := args.object("tags")
	if err != nil {
		return err
	}
	return sdk.EndSpan(spanID, status, monitoring.Tags(tags))
}

func burst(sdk *monitoring.SDK, args Args) (any, error) {
	n, err := args.number("n")
	if err != nil || n < 1 {
		return nil, errors.New("a burst is of at least one call")
	}
	message, first := "burst", 0.0
	if args["first"] != nil {
		if first, err = args.number("first"); err != nil {
			return nil, err
		}
	}
	if args["size"] != nil {
		size, err := args.number("size")
		if err != nil {
			return nil, err
		}
		message = strings.Repeat("x", int(size))
	}
	took := make([]float64, int(n))
	began := time.Now()
	for k := range took {
		before := time.Now()
		_ = sdk.LogEvent("info", message, monitoring.Fields{"i": int(first) + k, "file": "a.dat", "ok": true, "x": 1.5})
		took[k] = float64(time.Since(before).Nanoseconds()) / 1e3
	}
	elapsed := time.Since(began).Seconds()
	sort.Float64s(took)
	at := func(share float64) float64 { return took[int(n*share)] }
	return map[string]float64{"elapsed": elapsed, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": took[len(took)-1]}, nil
}

func spawn(sdk *monitoring.SDK, args Args) (any, error) {
	var argv []string
	words, _ := args["argv"].([]any)
	for _, word := range words {
		argv = append(argv, fmt.Sprint(word))
	}
	stdin, _ := args["stdin"].(string)
	if len(argv) == 0 {
		return nil, errors.New("argv is empty")
	}
	program := exec.Command(argv[0], argv[1:]...)
	program.Env = sdk.ChildEnv()
	program.Stdin = strings.NewReader(stdin)
	program.Stderr = os.Stderr
	stdout, err := program.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return nil, err
	}
	return map[string]any{"stdout": string(stdout), "status": program.ProcessState.ExitCode()}, nil
}

func setenv(args Args) error {
	for name, value := range args {
		if value == nil {
			_ = os.Unsetenv(name)
		} else if err := os.Setenv(name, fmt.Sprint(value)); err != nil {
			return err
		}
	}
	return nil
}

// ---- arguments ----

func (a Args) text(name string) (string, error) {
	text, is := a[name].(string)
	if !is {
		return "", fmt.Errorf("%s is a string, not %v", name, a[name])
	}
	return text, nil
}

// optional is a text that may be missing or null: then it is empty, as Go says so.
func (a Args) optional(name string) (string, error) {
	if a[name] == nil {
		return "", nil
	}
	return a.text(name)
}

func (a Args) number(name string) (float64, error) {
	switch value := a[name].(type) {
	case int64:
		return float64(value), nil
	case float64:
		return value, nil
	}
	return 0, fmt.Errorf("%s is a number, not %v", name, a[name])
}

func (a Args) object(name string) (monitoring.Fields, error) {
	if a[name] == nil {
		return nil, nil
	}
	fields, is := a[name].(map[string]any)
	if !is {
		return nil, fmt.Errorf("%s is an object, not %v", name, a[name])
	}
	return fields, nil
}

func (a Args) timeout() (context.Context, context.CancelFunc) {
	seconds, err := a.number("timeout")
	if err != nil {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), time.Duration(seconds*float64(time.Second)))
}

// expand reads the suite's notations: an object with one key that starts with $.
func expand(value any) (any, error) {
	switch value := value.(type) {
	case json.Number:
		if !strings.ContainsAny(value.String(), ".eE") {
			return value.Int64()
		}
		return value.Float64()
	case []any:
		for i, item := range value {
			read, err := expand(item)
			if err != nil {
				return nil, err
			}
			value[i] = read
		}
	case map[string]any:
		for key, item := range value {
			read, err := expand(item)
			if err != nil {
				return nil, err
			}
			if len(value) == 1 && strings.HasPrefix(key, "$") {
				return notation(key, read)
			}
			value[key] = read
		}
	}
	return value, nil
}

func notation(key string, value any) (any, error) {
	switch key {
	case "$bytes":
		raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(value))
		return string(raw), err
	case "$codes":
		return codes(value.([]any)), nil
	case "$float":
		return strconv.ParseFloat(fmt.Sprint(value), 64)
	case "$int":
		return strconv.ParseInt(fmt.Sprint(value), 10, 64)
	case "$repeat":
		pair := value.([]any)
		return strings.Repeat(pair[0].(string), int(pair[1].(int64))), nil
	case "$nest":
		var nested any = "end"
		for i := int64(0); i < value.(int64); i++ {
			nested = map[string]any{"k": nested}
		}
		return nested, nil
	case "$cycle":
		cycle := map[string]any{}
		cycle["self"] = cycle
		return cycle, nil
	}
	return nil, errUnsupported
}

// codes is a string of these code points. A lone surrogate is its three bytes, which are no valid UTF-8.
func codes(points []any) string {
	var text []byte
	for _, point := range points {
		code := point.(int64)
		if code >= 0xd800 && code < 0xe000 {
			text = append(text, 0xe0|byte(code>>12), 0x80|byte(code>>6&0x3f), 0x80|byte(code&0x3f))
		} else {
			text = append(text, string(rune(code))...)
		}
	}
	return string(text)
}
