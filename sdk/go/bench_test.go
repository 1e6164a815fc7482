//go:build unix && go1.21

package monitoring

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

var benchFields = Fields{"file": "lot-4711.dat", "rows": 1250, "ratio": 0.75, "ok": true}

// What the sender does meanwhile is in the figures too; `go run ./bench` tells what a call alone takes.
func BenchmarkLogEvent(b *testing.B) {
	for name, url := range map[string]string{"up": newSidecar(b, manner{}).url(), "absent": nobody, "hung": newSidecar(b, manner{silent: true}).url()} {
		b.Run(name, func(b *testing.B) {
			sdk := open(b, url)
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				_ = sdk.LogEvent("info", "file read", benchFields)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	scope := newScope("job-4711", "00f067aa0ba902b7")
	e := &encoder{}
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		e.encode("event", 1_700_000_000_000_000, `,"service":"bench","host":"fab1","pid":4711`, scope.text, func(e *encoder, whole bool) {
			e.text("level", "info")
			e.text("message", "file read")
			if whole {
				e.context(benchFields)
			}
		})
	}
	b.SetBytes(int64(len(e.buf)))
}

func BenchmarkSpan(b *testing.B) {
	sdk := open(b, nobody)
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		_, span := sdk.Start(context.Background(), "work")
		span.End(nil)
	}
}

func BenchmarkSlog(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for name, handler := range map[string]slog.Handler{"wafermon": open(b, nobody).Handler(nil), "json to a file": slog.NewJSONHandler(file, nil)} {
		b.Run(name, func(b *testing.B) {
			logger := slog.New(handler)
			b.ReportAllocs()
			for i := 0; i < b.N; i++ {
				logger.LogAttrs(context.Background(), slog.LevelInfo, "file read", slog.String("file", "lot-4711.dat"), slog.Int("rows", 1250), slog.Float64("ratio", 0.75), slog.Bool("ok", true))
			}
		})
	}
}
