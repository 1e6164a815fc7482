//go:build unix

package monitoring

import (
	"bufio"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A manner says how a testSidecar treats its clients; the zero one is that of a healthy sidecar of today.
type manner struct {
	offers   string // what the welcome has beside the usual
	silent   bool   // neither welcomes nor acknowledges
	badFrame bool   // refuses the first frame
	reads    bool   // false together with silent: reads nothing
}

// A testSidecar keeps what it is told, each message once.
type testSidecar struct {
	t        testing.TB
	listener net.Listener
	manner   manner

	lock     sync.Mutex
	hellos   []map[string]any
	messages []map[string]any
	held     map[string]float64 // by client
	frames   int
	refused  int
}

func newSidecar(t testing.TB, manner manner) *testSidecar {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, listener, manner)
}

func serve(t testing.TB, listener net.Listener, manner manner) *testSidecar {
	s := &testSidecar{t: t, listener: listener, manner: manner, held: map[string]float64{}}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.talk(conn)
		}
	}()
	return s
}

func (s *testSidecar) url() string { return "tcp://" + s.listener.Addr().String() }

func (s *testSidecar) talk(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReaderSize(conn, 1<<20)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return // a TLS handshake that failed, or a client that gave up
	}
	hello := s.parse(first)
	client := fmt.Sprint(hello["client"])
	s.lock.Lock()
	s.hellos = append(s.hellos, hello)
	held := s.held[client]
	s.lock.Unlock()
	if s.manner.silent {
		if s.manner.reads {
			_, _ = io.Copy(io.Discard, conn)
		} else {
			time.Sleep(time.Minute)
		}
		return
	}
	fmt.Fprintf(conn, `{"v":2,"type":"welcome","sidecar":"test","acked":%.0f,"max_line":65536%s}`+"\n", held, s.manner.offers)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		message := s.parse(line)
		if message["type"] != "frame" {
			s.take(client, message)
		} else if !s.unpack(client, message, lines) {
			fmt.Fprintln(conn, `{"type":"error","code":"bad_frame","detail":"as the test says"}`)
			// As the sidecar does: what comes is read to its end, since a reset would overtake the error.
			if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, lines)
			}
			return
		}
		if lines.Buffered() == 0 {
			s.lock.Lock()
			fmt.Fprintf(conn, `{"type":"ack","seq":%.0f}`+"\n", s.held[client])
			s.lock.Unlock()
		}
	}
}

func (s *testSidecar) parse(line []byte) map[string]any {
	var message map[string]any
	if err := json.Unmarshal(line, &message); err != nil {
		s.t.Errorf("%v: %.200q", err, line)
	}
	return message
}

func (s *testSidecar) take(client string, message map[string]any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	seq, _ := message["seq"].(float64)
	if message["client"] != client || seq > s.held[client]+1 {
		s.t.Errorf("client %v, seq %v after %v of %s", message["client"], seq, s.held[client], client)
	}
	if seq == s.held[client]+1 {
		s.held[client] = seq
		s.messages = append(s.messages, message)
	}
}

func (s *testSidecar) unpack(client string, frame map[string]any, from io.Reader) bool {
	s.lock.Lock()
	refuse := s.manner.badFrame && s.refused == 0
	if refuse {
		s.refused++
	}
	s.frames++
	s.lock.Unlock()
	if refuse {
		return false
	}
	packed := io.LimitReader(from, int64(frame["bytes"].(float64)))
	unpacked, err := zlib.NewReader(packed)
	if err != nil {
		s.t.Error(err)
		return false
	}
	raw, err := io.ReadAll(unpacked)
	if rest, _ := io.Copy(io.Discard, packed); err != nil || rest != 0 || float64(len(raw)) != frame["raw"] {
		s.t.Errorf("a frame of %d bytes, %d after it: %v: %v", len(raw), rest, frame, err)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	if float64(len(lines)-1) != frame["lines"] || lines[len(lines)-1] != "" {
		s.t.Errorf("a frame of %d lines: %v", len(lines)-1, frame)
	}
	for _, line := range lines[:len(lines)-1] {
		s.take(client, s.parse([]byte(line)))
	}
	return true
}

func (s *testSidecar) all() []map[string]any {
	s.lock.Lock()
	defer s.lock.Unlock()
	return append([]map[string]any(nil), s.messages...)
}

// open makes an SDK of the test's own: nothing of the environment matters.
func open(t testing.TB, url string, options ...Option) *SDK {
	t.Helper()
	sdk, err := Open("test", append([]Option{WithURL(url), WithSpillDir(t.TempDir())}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sdk.Close(context.Background()) })
	return sdk
}

func flush(t testing.TB, sdk *SDK) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := sdk.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func mustLog(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func assertLaw(t testing.TB, stats Stats) {
	t.Helper()
	if stats.Called != stats.Acked+stats.Rejected+stats.Dropped+stats.Waiting+stats.HandedOver {
		t.Errorf("these do not add up: %+v", stats)
	}
}

func spillFiles(t testing.TB, directory string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*.ldjson"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func linesOf(t testing.TB, path string) []map[string]any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		var message map[string]any
		if err := json.Unmarshal([]byte(line), &message); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		lines = append(lines, message)
	}
	return lines
}
