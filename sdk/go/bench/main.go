//go:build go1.21

// What a call costs, beside log/slog writing JSON to a file in the same run:
//
//	go run ./bench [seconds]
//
// Each way gets the same four fields at 5,000 calls per second from one goroutine, timed call by call. The sidecar is a
// process of its own that welcomes and acknowledges, or one that never answers, or none at all.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"time"

	"wafermon/monitoring"
)

const rate = 5000

func main() {
	seconds := 3.0
	if len(os.Args) > 1 {
		if os.Args[1] == "up" || os.Args[1] == "hung" {
			serve(os.Args[1] == "up")
			return
		}
		given, err := strconv.ParseFloat(os.Args[1], 64)
		if err != nil || given <= 0 {
			fmt.Fprintln(os.Stderr, "bench: how many seconds?")
			os.Exit(2)
		}
		seconds = given
	}
	if err := measure(seconds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serve is a sidecar just good enough to be fast: every client's lines are counted and acknowledged. It ends with stdin.
func serve(answers bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if answers {
				go acknowledge(conn)
			}
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func acknowledge(conn net.Conn) {
	defer conn.Close()
	data := make([]byte, 1<<20)
	seq := -1 // the hello is no message
	for {
		n, err := conn.Read(data)
		if err != nil {
			return
		}
		if seq < 0 {
			fmt.Fprintln(conn, `{"v":2,"type":"welcome","sidecar":"bench","acked":0,"max_line":65536}`)
		}
		seq += bytes.Count(data[:n], []byte{'\n'})
		if seq > 0 {
			fmt.Fprintf(conn, `{"type":"ack","seq":%d}`+"\n", seq)
		}
	}
}

func measure(seconds float64) error {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	file, err := os.Create(filepath.Join(folder, "bench.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	logger := slog.New(slog.NewJSONHandler(file, nil))
	fields := []any{"file", "lot-4711.dat", "rows", 1250, "ratio", 0.75, "ok", true}
	logged := report("slog, JSON to a file", paced(seconds, func() { logger.Info("file read", fields...) }))
	for _, name := range []string{"up", "absent", "hung"} {
		if err := compare(name, filepath.Join(folder, name), seconds, logged); err != nil {
			return err
		}
	}
	return nil
}

func compare(name, spill string, seconds, logged float64) error {
	url := "tcp://127.0.0.1:1"
	if name != "absent" {
		address, stop, err := sidecar(name)
		if err != nil {
			return err
		}
		defer stop()
		url = "tcp://" + address
	}
	sdk, err := monitoring.Open("bench", monitoring.WithURL(url), monitoring.WithSpillDir(spill))
	if err != nil {
		return err
	}
	defer sdk.Close(context.Background())
	rows := 1250
	call := func() {
		_ = sdk.LogEvent("info", "file read", monitoring.Fields{"file": "lot-4711.dat", "rows": rows, "ratio": 0.75, "ok": true})
	}
	call()
	time.Sleep(200 * time.Millisecond)
	p50 := report("LogEvent, sidecar "+name, paced(seconds, call))
	report("  a burst of 10,000", tight(10_000, call))
	stats := sdk.Stats()
	spilled := "nothing spilled"
	if stats.Spilled > 0 {
		spilled = "spilled"
	}
	fmt.Printf("  %.3f of logging to a file; %s; dropped %d\n", p50/logged, spilled, stats.Dropped)
	return nil
}

// sidecar starts this program as one.
func sidecar(name string) (address string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	program := exec.Command(self, name)
	stdin, err := program.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := program.Start(); err != nil {
		return "", nil, err
	}
	address, err = bufio.NewReader(stdout).ReadString('\n')
	stop = func() {
		_ = stdin.Close()
		_ = program.Wait()
	}
	if err != nil {
		stop()
		return "", nil, err
	}
	return address[:len(address)-1], stop, nil
}

// paced times each call, at a steady rate.
func paced(seconds float64, call func()) []time.Duration {
	took := make([]time.Duration, int(seconds*rate))
	due := time.Now()
	for i := range took {
		for time.Now().Before(due) {
			time.Sleep(50 * time.Microsecond)
		}
		due = due.Add(time.Second / rate)
		before := time.Now()
		call()
		took[i] = time.Since(before)
	}
	return took
}

func tight(count int, call func()) []time.Duration {
	took := make([]time.Duration, count)
	for i := range took {
		before := time.Now()
		call()
		took[i] = time.Since(before)
	}
	return took
}

// report prints quantiles, in microseconds, and gives the median.
func report(name string, took []time.Duration) float64 {
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	at := func(share float64) float64 {
		return float64(took[min(len(took)-1, int(share*float64(len(took))))].Nanoseconds()) / 1000
	}
	fmt.Printf("%-26s p50 %6.2f  p99 %7.2f  p99.9 %7.2f  max %8.1f us\n", name, at(0.5), at(0.99), at(0.999), at(1))
	return at(0.5)
}
