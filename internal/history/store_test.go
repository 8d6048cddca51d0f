package history_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
)

// newStore returns a store and what it counts.
func newStore(cfg history.Config) (*history.Store, *atomic.Int64) {
	var bytes atomic.Int64
	cfg.Count = func(n int) { bytes.Add(int64(n)) }
	return history.NewStore(cfg), &bytes
}

func say(log *history.Log, text string) {
	log.Append(frame.NewMessage(frame.Text, text, false), history.Position{}, nil, frame.Now())
}

// However many rooms there are, all of them keep no more than the total. The rooms go first whose last message is
// the oldest. Once all messages are too old, nothing is kept, and once nobody can come back, no log.
func TestTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rooms, overhead = 10_000, 160
		const total = 16_000 * (overhead + 12)
		limits := history.Limits{Messages: 100, Bytes: 1 << 20, Age: time.Minute}
		s, bytes := newStore(history.Config{Limits: limits, Total: total})
		defer s.Close()

		var logs []*history.Log
		for i := range rooms {
			logs = append(logs, s.Open(fmt.Sprint(i)))
		}
		most := int64(0)
		for i := range 3 * rooms {
			room := i
			if room >= rooms { // the first half goes on
				room = i % (rooms / 2)
			}
			say(logs[room], "0123456789")
			s.Settle()
			most = max(most, bytes.Load())
			if i%100 == 0 {
				time.Sleep(time.Millisecond) // of the bubble's time
			}
		}
		if most > total || most < total-total/8 {
			t.Errorf("%d bytes are kept, at most %d may be", most, total)
		}

		kept := int64(0)
		firstHalf, secondHalf := 0, 0
		for i, log := range logs {
			kept += log.Bytes() + overhead*int64(log.Len())
			if i < rooms/2 {
				firstHalf += min(log.Len(), 1)
			} else {
				secondHalf += log.Len()
			}
		}
		if kept != bytes.Load() {
			t.Errorf("the logs keep %d bytes, it counts %d", kept, bytes.Load())
		}
		if secondHalf > 0 || firstHalf < rooms/8 {
			t.Errorf("%d rooms keep something that went on, and %d messages of those that didn't", firstHalf, secondHalf)
		}
		for i := 1; i < rooms/2; i++ { // they were written in this order, the last round from 0 to the last
			if logs[i].Len() == 0 && logs[i-1].Len() > 0 {
				t.Fatalf("room %d keeps something, and room %d nothing, whose last message is younger", i-1, i)
			}
		}

		for i := range rooms {
			if i%2 == 0 {
				logs[i].SetIdle(frame.Now())
			}
		}
		time.Sleep(2 * limits.Age)
		synctest.Wait()
		if bytes.Load() != 0 {
			t.Errorf("%d bytes are left when all has aged", bytes.Load())
		}
		for i := range rooms {
			if gone := s.Find(fmt.Sprint(i)) == nil; gone != (i%2 == 0) {
				t.Fatalf("room %d: its log is gone %t", i, gone)
			}
		}
	})
}

// What a log counts for a message is about what that takes.
func TestMemoryIsCounted(t *testing.T) {
	const n = 100_000
	used := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	s, bytes := newStore(history.Config{Limits: history.Limits{Messages: n, Bytes: 1 << 30, Age: time.Hour}, Total: 1 << 30})
	defer s.Close()
	log := s.Open("a")
	before := used()
	for range n {
		say(log, "0123456789")
	}
	s.Settle()
	took, counted := (used()-before)/n, bytes.Load()/n
	if took < counted/2 || took > counted*3/2 {
		t.Errorf("a message takes %d bytes, and counts %d", took, counted)
	}
	runtime.KeepAlive(log)
}

// A closed store keeps nothing, and leaves no timer.
func TestClosedStoreKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var marked atomic.Int32
		s, bytes := newStore(history.Config{
			Limits: history.Limits{Messages: 10, Bytes: 1 << 10, Age: time.Minute}, Total: 1 << 20,
			Shared: true, Mark: func(string) { marked.Add(1) },
		})
		log := s.Open("a")
		log.AddTold(1)
		say(log, "one")
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if marked.Load() == 0 {
			t.Error("a log of which members are told isn't marked")
		}

		say(log, "two")
		s.Settle()
		s.Close()
		marked.Store(0)
		say(log, "three") // somebody still has the log
		s.Settle()
		late := s.Find("b")
		late.AddTold(1)
		say(late, "four")
		s.Settle()
		time.Sleep(time.Hour)
		synctest.Wait()
		if bytes.Load() != 0 || marked.Load() != 0 {
			t.Errorf("closed, it counts %d bytes and marks %d logs", bytes.Load(), marked.Load())
		}
	})
}
