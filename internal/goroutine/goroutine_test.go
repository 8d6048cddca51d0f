package goroutine

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// Each way of telling goroutines apart gives goroutines that live at the same time different IDs, and a
// goroutine the same one for as long as it lives, however its stack grows.
func TestGoroutinesAreToldApart(t *testing.T) {
	for name, current := range map[string]func() ID{"Current": Current, "fromStack": fromStack} {
		const many = 100
		ids := make(chan ID, many)
		asked, over := make(chan struct{}), sync.WaitGroup{}
		for range many {
			over.Go(func() {
				before := current()
				ids <- before
				<-asked
				if after := grow(200, current); after != before {
					t.Errorf("%s: a goroutine is %d, and %d later", name, before, after)
				}
			})
		}
		seen := map[ID]bool{0: true}
		for range many {
			id := <-ids
			if seen[id] {
				t.Errorf("%s: %d is the ID of two goroutines, or 0", name, id)
			}
			seen[id] = true
		}
		runtime.GC() // it shrinks stacks
		close(asked)
		over.Wait()
	}
}

// The number is the one that a stack trace shows.
func TestNumberIsTheTraces(t *testing.T) {
	var buf [64]byte
	trace := string(buf[:runtime.Stack(buf[:], false)])
	if want := fmt.Sprintf("goroutine %d [running]:", fromStack()); trace[:len(want)] != want {
		t.Errorf("%q, want it to begin with %q", trace, want)
	}
}

func grow(depth int, current func() ID) ID {
	var space [512]byte
	if depth == 0 {
		return current()
	}
	id := grow(depth-1, current)
	runtime.KeepAlive(&space)
	return id
}

func BenchmarkCurrent(b *testing.B) {
	for b.Loop() {
		Current()
	}
}
