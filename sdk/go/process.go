//go:build unix

package monitoring

import (
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"time"
)

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure tells this process's CPU since the last time, its memory and its disk bytes; NaN where the system doesn't.
func (s *SDK) measure() (cpu, mem, disk float64) {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	now, used := time.Now(), cpuTime()
	cpu, mem, disk = 100*float64(used-s.used)/float64(now.Sub(s.measured)), math.NaN(), math.NaN()
	cpu = math.Round(cpu*1000) / 1000
	s.measured, s.used = now, used
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident float64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err == nil {
			mem = resident * float64(os.Getpagesize())
		}
	}
	if counts, err := os.ReadFile("/proc/self/io"); err == nil {
		var read, written float64
		for _, line := range strings.Split(string(counts), "\n") {
			_, _ = fmt.Sscanf(line, "read_bytes: %g", &read)
			_, _ = fmt.Sscanf(line, "write_bytes: %g", &written)
		}
		disk = read + written
	}
	return cpu, mem, disk
}
