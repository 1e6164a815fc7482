//go:build unix

package monitoring

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

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
// belong to the holder of the SDK's state lock.
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
		if end < 0 {
			return 0, nil, nil
		}
		return end + 1, data[:end], nil
	})
	for replies.Scan() {
		s.guarded(func() {
			if t.link == k && !t.answer(replies.Bytes()) {
				t.lose() // it speaks another protocol, or refuses what we say
			}
			s.retire()
		})
		s.kick() // there may be room, or an end, that another goroutine waits for
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
