//go:build unix

package monitoring

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A fifo holds messages one after the other in one stretch of memory.
type fifo struct {
	data  []byte
	items []item
	head  int // items before it have left
}

type item struct {
	from, to int
	own      bool // a stats line, which counts in no figure
	settled  bool // rejected by the sidecar: neither sent nor counted any more
}

func (q *fifo) len() int { return len(q.items) - q.head }

// size is that of all messages in bytes.
func (q *fifo) size() int {
	if q.len() == 0 {
		return 0
	}
	return len(q.data) - q.items[q.head].from
}

func (q *fifo) at(i int) *item { return &q.items[q.head+i] }

func (q *fifo) bytes(i int) []byte { return q.data[q.at(i).from:q.at(i).to] }

func (q *fifo) push(message []byte) {
	from := len(q.data)
	q.data = append(q.data, message...)
	q.items = append(q.items, item{from: from, to: len(q.data)})
}

// pop removes the oldest message; the room that it took is used again now and then.
func (q *fifo) pop() {
	q.head++
	if q.len() == 0 {
		q.clear()
	} else if from := q.items[q.head].from; from > len(q.data)/2 {
		q.data = q.data[:copy(q.data, q.data[from:])]
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
		for i := range q.items {
			q.items[i].from -= from
			q.items[i].to -= from
		}
	}
}

func (q *fifo) clear() {
	q.data, q.items, q.head = q.data[:0], q.items[:0], 0
}

// shrink gives the memory of a burst back.
func (q *fifo) shrink() {
	if q.len() == 0 && cap(q.data) > chunk {
		*q = fifo{}
	}
}

// A spillFile holds whole lines of a client of its own; it is locked as long as its writer lives and wants it.
type spillFile struct {
	*os.File
	path   string
	client string
	count  int
	size   int
}

func createSpillFile(directory, service, client string) (*spillFile, error) {
	path := filepath.Join(directory, fmt.Sprintf("%s.%d.%s.ldjson", service, os.Getpid(), client))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND|syscall.O_NOFOLLOW, 0o660)
	if err != nil {
		return nil, err
	}
	_ = file.Chmod(0o660) // whatever the umask: in a setgid folder the group is the sidecar's
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return &spillFile{File: file, path: path, client: client}, nil
}

// add writes lines, `count` of them; how many got there. One that a full disk cuts is taken back.
func (f *spillFile) add(lines []byte, count int) int {
	written, err := f.Write(lines)
	if err != nil {
		written = bytes.LastIndexByte(lines[:written], '\n') + 1
		count = bytes.Count(lines[:written], []byte{'\n'})
		_ = f.Truncate(int64(f.size + written))
	}
	f.size += written
	f.count += count
	return count
}

// claim takes it for sending; false when somebody else has.
func (f *spillFile) claim() bool {
	if os.Rename(f.path, f.path+".taken") != nil {
		return false
	}
	f.path += ".taken"
	return true
}

// leave gives it to the one that takes it up.
func (f *spillFile) leave() {
	if free := strings.TrimSuffix(f.path, ".taken"); free != f.path {
		_ = os.Rename(f.path, free)
	}
	_ = f.Close()
}

func (f *spillFile) remove() {
	_ = os.Remove(f.path)
	_ = f.Close()
}

// A mark says how far a spill file's stream goes.
type mark struct {
	client string
	last   int
}

// A spool is an SDK's spill files, oldest first: the newest is written, only closed ones are sent.
type spool struct {
	directory string
	service   string
	files     []*spillFile
	writing   bool // into the newest
	retryAt   time.Duration
	marks     []mark // of all there ever were, or the newest of them
	lines     []byte
}

// write appends messages; how many there was room for.
func (p *spool) write(bodies *fifo, now time.Duration) int {
	done := 0
	for done < bodies.len() && now >= p.retryAt {
		if !p.writing && !p.begin() {
			p.retryAt = now + time.Second
			break
		}
		file := p.files[len(p.files)-1]
		p.lines = p.lines[:0]
		count := 0
		for done+count < bodies.len() {
			before := len(p.lines)
			p.lines = appendLine(p.lines, bodies.bytes(done+count), file.client, int64(file.count+count+1))
			if file.size+len(p.lines) > maxFile {
				p.lines = p.lines[:before]
				break
			}
			count++
		}
		added := file.add(p.lines, count)
		done += added
		p.marks[len(p.marks)-1].last = file.count
		p.writing = done == bodies.len()
		if added < count {
			p.retryAt = now + time.Second // the disk is full
		}
		if file.count == 0 {
			file.remove()
			p.files, p.marks = p.files[:len(p.files)-1], p.marks[:len(p.marks)-1]
			p.writing = false
		}
	}
	return done
}

// begin opens a new file to write; one less than the most, since one may be on its way.
func (p *spool) begin() bool {
	if len(p.files) >= maxFiles-1 {
		return false
	}
	file, err := p.create(randomHex(8))
	if err != nil {
		return false
	}
	p.files = append(p.files, file)
	p.marks = append(p.marks, mark{file.client, 0})
	if len(p.marks) > maxMarks {
		p.marks = p.marks[:copy(p.marks, p.marks[1:])]
	}
	return true
}

// leave writes what close could not deliver to a file of the SDK's own client; how many messages, without stats lines.
func (p *spool) leave(window *fifo, client string) int {
	room := maxFiles * maxFile
	for _, file := range p.files {
		room -= file.size
	}
	p.lines = p.lines[:0]
	var own []bool
	for i := 0; i < window.len() && len(p.lines)+len(window.bytes(i)) <= room; i++ {
		if !window.at(i).settled {
			p.lines = append(p.lines, window.bytes(i)...)
			own = append(own, window.at(i).own)
		}
	}
	if len(own) == 0 {
		return 0
	}
	file, err := p.create(client)
	if err != nil {
		return 0
	}
	if file.add(p.lines, len(own)) == 0 {
		file.remove()
		return 0
	}
	file.leave()
	left := 0
	for _, stats := range own[:file.count] {
		if !stats {
			left++
		}
	}
	return left
}

func (p *spool) create(client string) (*spillFile, error) {
	const common, writable, reachable = "/var/spool/wafermon", 2, 1
	private := fmt.Sprintf("/tmp/wafermon-%d", os.Getuid())
	directory := p.directory
	if directory == "" {
		directory = common
		if syscall.Access(common, writable|reachable) != nil {
			directory = private
		}
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	if directory == private {
		found, err := os.Lstat(private)
		if err != nil {
			return nil, err
		}
		owner, known := found.Sys().(*syscall.Stat_t)
		if !found.IsDir() || found.Mode().Perm()&0o022 != 0 || !known || int(owner.Uid) != os.Getuid() {
			return nil, fmt.Errorf("%s belongs to somebody else", private)
		}
	}
	return createSpillFile(directory, p.service, client)
}
