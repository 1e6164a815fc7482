//go:build unix

package monitoring

import (
	"bytes"
	"fmt"
	"time"
)

// run is the sender.
func (s *SDK) run() {
	timer := time.NewTimer(0)
	for {
		var farewells []*link
		var within time.Duration
		ended, pause := false, tick
		s.guarded(func() {
			now := s.now()
			moved := s.look(now)
			if farewells, within, ended = s.finish(now); !ended {
				pause = s.pause(now, moved)
			}
		})
		if ended {
			for _, k := range farewells {
				k.farewell(within)
			}
			close(s.done)
			return
		}
		if !timer.Stop() {
			select {
			case <-timer.C:
			default:
			}
		}
		timer.Reset(pause)
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// look does everything that is due; whether messages were taken from the inbox.
func (s *SDK) look(now time.Duration) bool {
	s.main.connect(now)
	s.main.judge(now)
	if s.main.phase == up && s.dropped() > s.reported {
		s.reportDrops()
	}
	s.advance()
	if s.taken.len() == 0 {
		s.mu.Lock()
		s.inbox, s.taken = s.taken, s.inbox
		s.stuck = false
		s.mu.Unlock()
	}
	patient := s.main.welcomes == 0 && s.main.failures == 0 && now < s.started+grace && s.taken.size() < maxBytes/2
	moved := false
	for s.taken.len() > 0 && !(patient && s.full()) {
		if s.full() {
			s.overflow.push(s.taken.bytes(0))
		} else {
			s.waiting.push(s.taken.bytes(0))
			s.advance()
		}
		s.taken.pop()
		moved = true
	}
	written := s.spool.write(&s.overflow, now)
	s.counts.Spilled += int64(written)
	s.counts.Dropped += int64(s.overflow.len() - written)
	s.overflow.clear()
	s.deliverSpill(now)
	s.tellStats(now)
	s.looked = now
	return moved
}

// advance numbers what waits, as far as the window has room for it.
func (s *SDK) advance() {
	for s.main.phase == up && s.waiting.len() > 0 && s.main.window.size() < maxBytes {
		s.main.number(s.waiting.bytes(0), false)
		s.waiting.pop()
	}
}

func (s *SDK) full() bool {
	return s.waiting.len() >= s.buffer || s.waiting.size()+maxBody >= maxBytes
}

func (s *SDK) dropped() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts.Dropped + s.refused
}

func (s *SDK) reportDrops() {
	count := s.dropped() - s.reported
	s.reported += count
	s.mu.Lock()
	s.called++
	s.mu.Unlock()
	e := &encoder{}
	e.encode("event", time.Now().UnixMicro(), s.origin, s.current.Load().text, func(e *encoder, _ bool) {
		e.text("level", "warning")
		e.text("message", fmt.Sprintf("%d messages dropped", count))
		e.context(Fields{"kind": "dropped", "count": count})
	})
	s.main.number(e.buf, false)
}

// tellStats sends a stats line some seconds after something was called, where the sidecar takes such.
func (s *SDK) tellStats(now time.Duration) {
	s.mu.Lock()
	if s.called != s.told && s.statsAt == never {
		s.statsAt = now + statsPace
	}
	s.mu.Unlock()
	if s.main.phase == up && s.main.stats && now >= s.statsAt {
		s.numberStats(false)
	}
}

// numberStats puts a stats line into the SDK's own stream.
func (s *SDK) numberStats(final bool) {
	s.mu.Lock()
	called, unsent := s.called, s.inbox.len()+s.taken.len()+s.waiting.len()
	s.mu.Unlock()
	s.told, s.statsAt = called, never
	dropped := s.dropped()
	e := &encoder{}
	e.encode("stats", time.Now().UnixMicro(), s.origin, "", func(e *encoder, _ bool) {
		e.number("v", 2)
		e.number("called", called)
		e.number("dropped", dropped)
		e.number("unsent", int64(unsent))
		e.number("last", s.main.last)
		e.field("streams")
		e.buf = append(e.buf, '[')
		for i, mark := range s.spool.marks {
			if i > 0 {
				e.buf = append(e.buf, ',')
			}
			e.buf = append(e.buf, '{')
			e.text("client", mark.client)
			e.number("last", int64(mark.last))
			e.buf = append(e.buf, '}')
		}
		e.buf = append(e.buf, ']')
		if final {
			e.buf = append(e.buf, `,"final":true`...)
		}
	})
	seq := s.main.number(e.buf, true)
	if final {
		s.final = seq
	}
}

// deliverSpill sends, while connected, closed spill files one by one, each over a connection of its own.
func (s *SDK) deliverSpill(now time.Duration) {
	if s.main.phase == up && s.courier == nil {
		s.spool.writing = s.spool.writing && s.full()
		closed := len(s.spool.files)
		if s.spool.writing {
			closed--
		}
		if closed > 0 {
			file := s.spool.files[0]
			s.spool.files = s.spool.files[:copy(s.spool.files, s.spool.files[1:])]
			s.deliver(file)
		}
	}
	if s.courier == nil {
		return
	}
	if s.main.phase == up {
		s.courier.connect(now)
	}
	s.courier.judge(now)
	s.retire()
}

// retire removes a spill file once all of it is settled. The one that settles the last message does so at once: when nothing
// is waiting any more, no file is there.
func (s *SDK) retire() {
	if s.courier != nil && s.courier.window.len() == 0 {
		s.courier.lose()
		s.courier.file.remove()
		s.courier = nil
		s.kick() // there may be another
	}
}

func (s *SDK) deliver(file *spillFile) {
	lines := make([]byte, file.size)
	if _, err := file.ReadAt(lines, 0); err != nil || !file.claim() {
		s.counts.HandedOver += int64(file.count)
		_ = file.Close()
		return
	}
	s.courier = &stream{sdk: s, client: file.client, file: file}
	for _, line := range bytes.SplitAfter(lines, []byte{'\n'}) {
		if len(line) > 0 {
			s.courier.keep(line, false)
		}
	}
}

// kept counts the messages that the sender has taken and not yet settled.
func (s *SDK) kept() int {
	kept := s.taken.len() + s.waiting.len() + s.main.owed
	for _, file := range s.spool.files {
		kept += file.count
	}
	if s.courier != nil {
		kept += s.courier.owed
	}
	return kept
}

// pause is how long the sender may wait: a moment while there is work, else until something is due. Calls and replies
// wake it.
func (s *SDK) pause(now time.Duration, moved bool) time.Duration {
	s.quiet++
	if moved {
		s.quiet = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quiet < idleTicks || s.life == closing || s.inbox.len() > 0 || s.taken.len() > 0 {
		return tick
	}
	s.asleep = true
	for _, queue := range []*fifo{&s.inbox, &s.taken, &s.waiting, &s.overflow, &s.main.window} {
		queue.shrink()
	}
	pause := never
	if s.main.phase == up && s.main.stats {
		pause = s.statsAt - now
	}
	for _, t := range []*stream{s.main, s.courier} {
		switch {
		case t == nil || t == s.courier && s.main.phase != up:
		case t.phase == resting:
			pause = min(pause, t.retryAt-now)
		case t.phase != up || t.window.len() > 0:
			pause = min(pause, silence/10)
		}
	}
	return max(pause, time.Millisecond)
}

// finish ends the SDK when it is time to: it leaves the rest in a spill file, and gives the connections to say farewell
// to within a time.
func (s *SDK) finish(now time.Duration) (links []*link, within time.Duration, ended bool) {
	main := s.main
	s.mu.Lock()
	ending, closeAt, pending := s.life == closing, s.closeAt, s.inbox.len()
	s.mu.Unlock()
	if !ending {
		return nil, 0, false
	}
	if pending+s.taken.len()+s.waiting.len() == 0 && main.phase == up && main.stats && main.last != s.final {
		s.numberStats(true)
	}
	hopeful := main.phase == up || main.failures == 0
	if hopeful && pending+s.kept()+main.window.len() > 0 && now < closeAt {
		return nil, 0, false
	}
	s.mu.Lock()
	s.life = over
	s.mu.Unlock()
	links = s.hangUp()
	for _, queue := range []*fifo{&s.waiting, &s.taken, &s.inbox} { // nobody puts anything into the inbox any more
		for ; queue.len() > 0; queue.pop() {
			main.number(queue.bytes(0), false)
		}
	}
	if (main.stats || main.welcomes == 0) && main.last != s.final {
		s.numberStats(true)
	}
	s.handOver()
	s.news.Broadcast()
	return links, max(time.Millisecond, min(time.Second/2, closeAt-now)), true
}

// hangUp takes the connections from their streams.
func (s *SDK) hangUp() []*link {
	var links []*link
	for _, t := range []*stream{s.main, s.courier} {
		if t == nil {
			continue
		}
		if t.hangUp != nil {
			t.hangUp()
		}
		if t.link != nil {
			links = append(links, t.link)
		}
		t.link, t.phase, t.retryAt = nil, resting, never
	}
	return links
}

// handOver leaves everything that is not settled in spill files.
func (s *SDK) handOver() {
	main, wanted := s.main, int64(s.main.owed)
	left := int64(s.spool.leave(&main.window, main.client))
	s.lost = wanted - left
	s.counts.Spilled += left
	s.counts.Dropped += s.lost
	s.counts.HandedOver += left
	main.window.clear()
	main.owed = 0
	s.counts.HandedOver += int64(s.kept())
	if s.courier != nil {
		s.courier.file.leave()
		s.courier = nil
	}
	for _, file := range s.spool.files {
		file.leave()
	}
	s.spool.files = nil
}
