package main

import (
	"net"
	"os"
	"runtime"
	"time"
)

// usage is what this process holds.
type usage struct {
	goroutines, files int
	heap              int64 // bytes in use
}

func measure() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd") // none where there is no such thing
	return usage{goroutines: runtime.NumGoroutine(), files: len(files), heap: int64(m.HeapAlloc)}
}

// warmUp has the runtime open what it keeps for all sockets.
func warmUp() {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
}

func (u usage) max(v usage) usage {
	return usage{max(u.goroutines, v.goroutines), max(u.files, v.files), max(u.heap, v.heap)}
}

const (
	leakTime = 5 * time.Second // in which all is to be as before
	heapRest = 8 << 20         // bytes that pools and the runtime may keep
)

// checkLeaks waits until no goroutine or file more is held than before, and hardly more heap.
func (s *soak) checkLeaks(before usage) {
	var now usage
	for deadline := time.Now().Add(leakTime); ; time.Sleep(50 * time.Millisecond) {
		runtime.GC()
		now = measure()
		if now.goroutines <= before.goroutines && now.files <= before.files && now.heap <= before.heap+heapRest {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	stacks := make([]byte, 1<<16)
	stacks = stacks[:runtime.Stack(stacks, true)]
	s.fault("held before: %+v; after: %+v\n%s", before, now, stacks)
}
