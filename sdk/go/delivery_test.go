//go:build unix

package monitoring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const offersStats, offersBoth = `,"features":["stats"]`, `,"compress":"zlib","max_frame":65536,"features":["stats"]`

func burst(t testing.TB, sdk *SDK, count int) {
	t.Helper()
	for i := 0; i < count; i++ {
		mustLog(t, sdk.LogEvent("info", "burst", Fields{"i": i, "file": "lot-4711.dat", "ok": true}))
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	mustLog(t, err)
	sidecar := serve(t, listener, manner{})
	sdk := open(t, "unix://"+path)
	burst(t, sdk, 10)
	flush(t, sdk)
	mustLog(t, sdk.Close(context.Background()))
	if n := len(sidecar.all()); n != 10 {
		t.Errorf("%d messages", n)
	}
}

// authority makes certificates that are signed by itself, in PEM files.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	var der []byte
	der, a.key = a.sign("authority", true)
	a.cert, _ = x509.ParseCertificate(der)
	a.file = filepath.Join(t.TempDir(), "ca.pem")
	a.write(a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) sign(name string, isCA bool) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustLog(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if isCA {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	mustLog(a.t, err)
	return der, key
}

func (a *authority) write(path, kind string, der []byte) {
	mustLog(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func (a *authority) pair(name string) (cert, key string) {
	der, private := a.sign(name, false)
	cert, key = filepath.Join(a.t.TempDir(), name+".pem"), filepath.Join(a.t.TempDir(), name+".key")
	a.write(cert, "CERTIFICATE", der)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	mustLog(a.t, err)
	a.write(key, "PRIVATE KEY", secret)
	return cert, key
}

func (a *authority) listen(clients bool) net.Listener {
	cert, key := a.pair("server")
	pair, err := tls.LoadX509KeyPair(cert, key)
	mustLog(a.t, err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AddCert(a.cert)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	mustLog(a.t, err)
	return listener
}

func tlsURL(listener net.Listener) string {
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return "tls://localhost:" + port
}

func TestTLS(t *testing.T) {
	trusted := newAuthority(t)
	t.Setenv("WAFERMON_TLS_CA", trusted.file)
	sidecar := serve(t, trusted.listen(false), manner{offers: offersBoth})
	sdk := open(t, tlsURL(sidecar.listener))
	burst(t, sdk, 3000)
	flush(t, sdk)
	mustLog(t, sdk.Close(context.Background()))
	if n := len(sidecar.all()); n < 3000 {
		t.Errorf("%d messages", n)
	}
}

func TestMutualTLS(t *testing.T) {
	trusted := newAuthority(t)
	t.Setenv("WAFERMON_TLS_CA", trusted.file)
	cert, key := trusted.pair("client")
	t.Setenv("WAFERMON_TLS_CERT", cert)
	t.Setenv("WAFERMON_TLS_KEY", key)
	sidecar := serve(t, trusted.listen(true), manner{})
	sdk := open(t, tlsURL(sidecar.listener))
	burst(t, sdk, 10)
	flush(t, sdk)
	if n := len(sidecar.all()); n != 10 {
		t.Errorf("%d messages", n)
	}
}

// stderr is what the SDK says during a test.
func stderr(t *testing.T, during func()) string {
	t.Helper()
	reading, writing, err := os.Pipe()
	mustLog(t, err)
	before := os.Stderr
	os.Stderr = writing
	during()
	os.Stderr = before
	_ = writing.Close()
	said, _ := io.ReadAll(reading)
	return string(said)
}

func TestWrongCertificatesCostOneLineAndNoMessage(t *testing.T) {
	t.Setenv("WAFERMON_TLS_CA", newAuthority(t).file)
	stranger := newAuthority(t)
	said := stderr(t, func() {
		sidecar := serve(t, stranger.listen(false), manner{})
		sdk := open(t, tlsURL(sidecar.listener))
		burst(t, sdk, 10)
		for deadline := time.Now().Add(20 * time.Second); sdk.failures() < 3 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		mustLog(t, sdk.Close(context.Background()))
		if stats := sdk.Stats(); stats.HandedOver != 10 {
			t.Errorf("%+v", stats)
		}
	})
	if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "wafermon: no TLS with the sidecar: ") {
		t.Errorf("%q", said)
	}
}

func TestAMissingClientCertificateCostsOneLineAndNoMessage(t *testing.T) {
	trusted := newAuthority(t)
	t.Setenv("WAFERMON_TLS_CA", trusted.file)
	for _, cert := range []string{"", filepath.Join(t.TempDir(), "no.pem")} {
		t.Setenv("WAFERMON_TLS_CERT", cert)
		said := stderr(t, func() {
			sidecar := serve(t, trusted.listen(true), manner{})
			sdk := open(t, tlsURL(sidecar.listener))
			burst(t, sdk, 10)
			for deadline := time.Now().Add(20 * time.Second); sdk.failures() < 3 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			mustLog(t, sdk.Close(context.Background()))
			if stats := sdk.Stats(); stats.HandedOver != 10 {
				t.Errorf("%+v", stats)
			}
		})
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, "certificate") && !strings.Contains(said, "WAFERMON_TLS_CERT") {
			t.Errorf("%q: %q", cert, said)
		}
	}
}

func (s *SDK) failures() int {
	s.state.Lock()
	defer s.state.Unlock()
	return s.main.failures
}

func TestBadURLIsSaidOnceAndTheDefaultServes(t *testing.T) {
	for _, url := range []string{"http://x", "tcp://", "tcp://h:0", "tcp://h:70000", "unix://relative", "tcp://a b", "tcp://h:1/x"} {
		said := stderr(t, func() {
			if sdk := open(t, url); sdk.network != "tcp" || sdk.address != "127.0.0.1:7411" {
				t.Errorf("%s: %s", url, sdk.address)
			}
		})
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, url) {
			t.Errorf("%s: %q", url, said)
		}
	}
	for url, want := range map[string]string{
		"tcp://h": "h:7411", "tls://h": "h:7413", "tcp://[::1]:5": "[::1]:5", "unix:///a b": "/a b", "tcp://h:5/": "h:5",
	} {
		if sdk := open(t, url); sdk.address != want {
			t.Errorf("%s: %s", url, sdk.address)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Setenv("WAFERMON_COMPRESS", "zlib")
	sidecar := newSidecar(t, manner{offers: offersBoth})
	sdk := open(t, sidecar.url())
	burst(t, sdk, 2000)
	flush(t, sdk)
	if n := len(sidecar.all()); n != 2000 || sidecar.frames == 0 {
		t.Errorf("%d messages, %d frames", n, sidecar.frames)
	}
	if fmt.Sprint(sidecar.hellos[0]["compress"]) != "[zlib]" {
		t.Errorf("%v", sidecar.hellos[0])
	}
}

func TestLinesAfterABadFrame(t *testing.T) {
	t.Setenv("WAFERMON_COMPRESS", "zlib")
	said := stderr(t, func() {
		sidecar := newSidecar(t, manner{offers: offersBoth, badFrame: true})
		sdk := open(t, sidecar.url())
		burst(t, sdk, 2000)
		flush(t, sdk)
		if n := len(sidecar.all()); n != 2000 || sidecar.frames != 1 || sidecar.hellos[1]["compress"] != nil {
			t.Errorf("%d messages, %d frames, %v", n, sidecar.frames, sidecar.hellos)
		}
		mustLog(t, sdk.Close(context.Background()))
	})
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "bad_frame") {
		t.Errorf("%q", said)
	}
}

func TestFinalStatsLine(t *testing.T) {
	sidecar := newSidecar(t, manner{offers: offersStats})
	sdk := open(t, sidecar.url())
	burst(t, sdk, 10)
	mustLog(t, sdk.Close(context.Background()))
	m := sidecar.all()
	last := m[len(m)-1]
	if len(m) != 11 || last["final"] != true || last["called"] != 10.0 || last["last"] != 10.0 || last["unsent"] != 0.0 {
		t.Errorf("%v", last)
	}
	if stats := sdk.Stats(); stats.Acked != 10 || stats.Sent != 10 {
		t.Errorf("%+v", stats)
	}
}

func TestCloseWaitsForNoSidecarThatIsAway(t *testing.T) {
	spill := t.TempDir()
	sdk := open(t, nobody, WithSpillDir(spill))
	burst(t, sdk, 100)
	for sdk.failures() == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	mustLog(t, sdk.Close(context.Background()))
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	lines := linesOf(t, spillFiles(t, spill)[0])
	if len(lines) != 101 || lines[100]["type"] != "stats" || lines[100]["final"] != true {
		t.Errorf("%d lines, the last is %v", len(lines), lines[len(lines)-1])
	}
	stats := sdk.Stats()
	assertLaw(t, stats)
	if stats.HandedOver != 100 {
		t.Errorf("%+v", stats)
	}
}

// A context that is cancelled ends Close, and what it could not deliver is kept all the same.
func TestCancelledClose(t *testing.T) {
	spill := t.TempDir()
	sdk := open(t, newSidecar(t, manner{silent: true, reads: true}).url(), WithSpillDir(spill))
	burst(t, sdk, 100)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	began := time.Now()
	mustLog(t, sdk.Close(ctx))
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if n := len(linesOf(t, spillFiles(t, spill)[0])); n != 101 {
		t.Errorf("%d lines", n)
	}
}

func TestFlushSaysWhatIsWaiting(t *testing.T) {
	sdk := open(t, newSidecar(t, manner{silent: true, reads: true}).url())
	burst(t, sdk, 7)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := sdk.Flush(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "7 messages") {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := sdk.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestCloseWithoutAPlaceSaysWhatIsLost(t *testing.T) {
	sdk := open(t, nobody, WithSpillDir("/proc/wafermon"))
	burst(t, sdk, 30)
	err := sdk.Closer().Close()
	if err == nil || !strings.Contains(err.Error(), "30 messages are lost") {
		t.Error(err)
	}
	stats := sdk.Stats()
	assertLaw(t, stats)
	if stats.Dropped != 30 {
		t.Errorf("%+v", stats)
	}
}

func TestSpillFilesAreForTheGroupWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	spill := t.TempDir()
	sdk := open(t, nobody, WithSpillDir(spill), WithBuffer(5))
	burst(t, sdk, 50)
	for deadline := time.Now().Add(20 * time.Second); sdk.Stats().Spilled == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	mustLog(t, sdk.Close(context.Background()))
	files := spillFiles(t, spill)
	if len(files) != 2 {
		t.Fatalf("%v", files)
	}
	for _, file := range files {
		found, err := os.Stat(file)
		if err != nil || found.Mode().Perm() != 0o660 {
			t.Errorf("%v: %v", found.Mode(), err)
		}
	}
}

// A child process keeps neither a connection nor a lock of its parent.
func TestDescriptorsAreClosedOnExec(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	sdk := open(t, sidecar.url(), WithBuffer(5))
	other := open(t, nobody, WithBuffer(1))
	burst(t, sdk, 1)
	flush(t, sdk)
	burst(t, other, 50)
	for deadline := time.Now().Add(20 * time.Second); other.Stats().Spilled == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	other.state.Lock()
	descriptors := []uintptr{other.spool.files[0].Fd()}
	other.state.Unlock()
	sdk.state.Lock()
	raw, err := sdk.main.link.Conn.(*net.TCPConn).SyscallConn()
	mustLog(t, err)
	mustLog(t, raw.Control(func(descriptor uintptr) { descriptors = append(descriptors, descriptor) }))
	sdk.state.Unlock()
	for _, descriptor := range descriptors {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, descriptor, syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: %v, %v", descriptor, flags, errno)
		}
	}
}

// However many SDKs come and go, no goroutine of theirs stays.
func TestNothingStaysAfterClose(t *testing.T) {
	sidecar := newSidecar(t, manner{})
	before := runtime.NumGoroutine()
	for i := 0; i < 20; i++ {
		for _, url := range []string{sidecar.url(), nobody} {
			sdk := open(t, url)
			burst(t, sdk, 3)
			mustLog(t, sdk.Close(context.Background()))
		}
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// A sidecar that reads nothing costs no call its time, and memory stays bounded.
func TestHungSidecar(t *testing.T) {
	spill := t.TempDir()
	sdk := open(t, newSidecar(t, manner{silent: true}).url(), WithSpillDir(spill))
	message := strings.Repeat("x", 10_000)
	worst := time.Duration(0)
	for i := 0; i < 2000; i++ {
		before := time.Now()
		mustLog(t, sdk.LogEvent("info", message))
		worst = max(worst, time.Since(before))
	}
	if worst > time.Second {
		t.Errorf("a call took %v", worst)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	mustLog(t, sdk.Close(ctx))
	stats := sdk.Stats()
	assertLaw(t, stats)
	if stats.HandedOver != 2000 {
		t.Errorf("%+v", stats)
	}
}

// One call waits a moment for a sender that is stuck in a write; those that follow don't, and are counted.
func TestASenderThatIsStuckHoldsNobodyUp(t *testing.T) {
	sdk := open(t, nobody)
	mustLog(t, sdk.LogEvent("info", "first"))
	sdk.state.Lock() // as a write to a disk that hangs does
	message := strings.Repeat("x", 60_000)
	began := time.Now()
	for i := 0; i < 200; i++ {
		mustLog(t, sdk.LogEvent("info", message))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("200 calls took %v", took)
	}
	sdk.mu.Lock()
	inbox, refused := sdk.inbox.size(), sdk.refused
	sdk.mu.Unlock()
	if inbox > maxBytes || refused == 0 {
		t.Errorf("%d bytes wait, %d calls refused", inbox, refused)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	if sdk.Flush(ctx) == nil {
		t.Error("flushed")
	}
	cancel()
	sdk.state.Unlock()
	assertLaw(t, sdk.Stats())
}

func TestAnAckOfWhatWasNeverSentSettlesNothing(t *testing.T) {
	sdk := open(t, nobody)
	sdk.state.Lock()
	defer sdk.state.Unlock()
	main := sdk.main
	main.number([]byte("{"), false)
	main.number([]byte("{"), false)
	main.highest = 1
	if !main.answer([]byte(`{"type":"ack","seq":99}`)) || main.window.len() != 1 || sdk.counts.Acked != 1 {
		t.Errorf("%d are in the window, %d acknowledged", main.window.len(), sdk.counts.Acked)
	}
	for _, reply := range []string{`{"type":"ack"}`, `{"type":"ack","seq":"1"}`, `nonsense`, `{"type":"welcome"}`, `{"type":"welcome","v":3,"acked":0}`, `[]`} {
		if main.answer([]byte(reply)) {
			t.Errorf("%s is taken", reply)
		}
	}
}

func TestQueue(t *testing.T) {
	var q fifo
	next, want := 0, 0
	for round := 0; round < 2000; round++ {
		for i := 0; i < round%7; i++ {
			q.push([]byte(fmt.Sprint("message ", next)))
			next++
		}
		for i := 0; i < round%5 && q.len() > 0; i++ {
			if got := string(q.bytes(0)); got != fmt.Sprint("message ", want) {
				t.Fatalf("%q, want %d", got, want)
			}
			q.pop()
			want++
		}
		size := 0
		for i := 0; i < q.len(); i++ {
			size += len(q.bytes(i))
		}
		if q.len() != next-want || q.size() != size {
			t.Fatalf("%d messages of %d bytes, want %d of %d", q.len(), q.size(), next-want, size)
		}
	}
}

// When nothing is waiting any more, no spill file is there.
func TestFlushLeavesNoSpillFile(t *testing.T) {
	for round := 0; round < 10; round++ {
		away, err := net.Listen("tcp", "127.0.0.1:0")
		mustLog(t, err)
		address := away.Addr().String()
		mustLog(t, away.Close())
		spill := t.TempDir()
		sdk := open(t, "tcp://"+address, WithSpillDir(spill), WithBuffer(5))
		burst(t, sdk, 100)
		for deadline := time.Now().Add(20 * time.Second); sdk.Stats().Spilled < 95 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		back, err := net.Listen("tcp", address)
		mustLog(t, err)
		sidecar := serve(t, back, manner{})
		flush(t, sdk)
		left, err := os.ReadDir(spill)
		if err != nil || len(left) != 0 {
			t.Fatalf("%v: %v", left, err)
		}
		if n := len(sidecar.all()); n != 100 {
			t.Errorf("%d messages", n)
		}
		mustLog(t, sdk.Close(context.Background()))
	}
}
