//go:build unix && go1.21

package monitoring

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"time"
)

// A Handler makes events of log records: slog.New(sdk.Handler(nil)). Attributes and groups become the event's context;
// the record keeps its own time, and belongs to the span of the context that it was logged with.
type Handler struct {
	sdk     *SDK
	options slog.HandlerOptions
	parts   []part
}

// A part of what WithGroup and WithAttrs have gathered: a group that is open from here on, or attributes.
type part struct {
	group string
	attrs []slog.Attr
}

// Handler makes one that takes records from options.Level on (info where nil), and tells where they were logged with
// options.AddSource.
func (s *SDK) Handler(options *slog.HandlerOptions) *Handler {
	if options == nil {
		options = &slog.HandlerOptions{}
	}
	return &Handler{sdk: s, options: *options}
}

// Enabled says whether records of this level become events.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	if h.options.Level == nil {
		return level >= slog.LevelInfo
	}
	return level >= h.options.Level.Level()
}

// WithAttrs is a handler whose records all have these attributes.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(part{attrs: attrs})
}

// WithGroup is a handler whose records have their further attributes in a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(part{group: name})
}

func (h *Handler) with(added part) *Handler {
	parts := append(h.parts[:len(h.parts):len(h.parts)], added)
	return &Handler{sdk: h.sdk, options: h.options, parts: parts}
}

// Handle sends a record; it never fails.
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	l := h.sdk.In(ctx)
	ts := record.Time
	if ts.IsZero() {
		ts = time.Now()
	}
	l.put("event", ts, l.scope(), func(e *encoder, whole bool) {
		e.text("level", levelOf(record.Level))
		e.text("message", record.Message)
		if whole {
			w := attrWriter{encoder: e, replace: h.options.ReplaceAttr}
			w.group("context", func() { h.fields(&w, record) })
		}
	})
	return nil
}

func levelOf(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "debug"
	case level < slog.LevelWarn:
		return "info"
	case level < slog.LevelError:
		return "warning"
	case level < slog.LevelError+4:
		return "error"
	}
	return "critical"
}

func (h *Handler) fields(w *attrWriter, record slog.Record) {
	if h.options.AddSource && record.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{record.PC}).Next()
		w.field(slog.SourceKey)
		w.str(frame.File + ":" + strconv.Itoa(frame.Line))
	}
	w.parts(h.parts, record)
}

// An attrWriter writes attributes into an event's context.
type attrWriter struct {
	*encoder
	replace func(groups []string, attr slog.Attr) slog.Attr
	groups  []string // those that are open
}

// group opens one, and takes it back where nothing is written into it.
func (w *attrWriter) group(name string, write func()) {
	before := len(w.buf)
	w.key(name)
	w.buf = append(w.buf, '{')
	empty := len(w.buf)
	write()
	if len(w.buf) == empty {
		w.buf = w.buf[:before]
		return
	}
	w.buf = append(w.buf, '}')
}

// nested is a group of attributes inside the context; what would lie too deep stays in the group around it.
func (w *attrWriter) nested(name string, write func()) {
	if len(w.groups) >= maxDepth-1 {
		write()
		return
	}
	w.groups = append(w.groups, name)
	w.group(name, write)
	w.groups = w.groups[:len(w.groups)-1]
}

// parts writes what a handler has gathered, each group inside the one before, and the record's attributes innermost.
func (w *attrWriter) parts(parts []part, record slog.Record) {
	for i, part := range parts {
		if part.group != "" {
			w.nested(part.group, func() { w.parts(parts[i+1:], record) })
			return
		}
		w.attrs(part.attrs)
	}
	record.Attrs(func(attr slog.Attr) bool {
		w.attr(attr)
		return !w.full()
	})
}

func (w *attrWriter) attrs(attrs []slog.Attr) {
	for _, attr := range attrs {
		w.attr(attr)
	}
}

func (w *attrWriter) attr(attr slog.Attr) {
	attr.Value = attr.Value.Resolve()
	if w.replace != nil && attr.Value.Kind() != slog.KindGroup {
		attr = w.replace(w.groups, attr)
		attr.Value = attr.Value.Resolve()
	}
	value := attr.Value
	if attr.Equal(slog.Attr{}) {
		return
	}
	if value.Kind() == slog.KindGroup {
		if attr.Key == "" {
			w.attrs(value.Group())
		} else {
			w.nested(attr.Key, func() { w.attrs(value.Group()) })
		}
		return
	}
	w.key(attr.Key)
	switch value.Kind() {
	case slog.KindString:
		w.str(value.String())
	case slog.KindInt64:
		w.integer(value.Int64())
	case slog.KindUint64:
		w.unsigned(value.Uint64())
	case slog.KindFloat64:
		w.float(value.Float64(), 64)
	case slog.KindBool:
		w.buf = strconv.AppendBool(w.buf, value.Bool())
	default:
		w.value(value.Any(), len(w.groups)+2)
	}
}
