package scale_test

import (
	"fmt"
	"hash/maphash"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// locks are those of a hub's shards. No exported name shows them.
type locks struct {
	seed maphash.Seed
	mus  []*sync.Mutex
}

func locksOf(hub *wsroom.Hub) (l locks) {
	store := reflect.ValueOf(hub).Elem().FieldByName("store")
	l.seed = *(*maphash.Seed)(unsafe.Pointer(store.FieldByName("seed").UnsafeAddr()))
	shards := store.FieldByName("shards")
	for i := range shards.Len() {
		l.mus = append(l.mus, (*sync.Mutex)(unsafe.Pointer(shards.Index(i).FieldByName("mu").UnsafeAddr())))
	}
	return l
}

// index is the shard of a room.
func (l locks) index(room string) int { return int(maphash.String(l.seed, room) % uint64(len(l.mus))) }

// blocked waits until a goroutine in the function waits for a mutex.
func blocked(t *testing.T, function string) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(stack, "sync.Mutex.Lock") && strings.Contains(stack, function+"(") {
				return
			}
		}
	}
	t.Fatalf("%s doesn't wait", function)
}

// locked returns the shards that somebody else has locked, as a set.
func (l locks) locked() (set uint64) {
	for i, mu := range l.mus {
		if mu.TryLock() {
			mu.Unlock()
		} else {
			set |= 1 << i
		}
	}
	return set
}

// What lists rooms or connections locks one shard at a time. So it holds up a send no longer than a copy of a
// sixty-fourth takes.
func TestListsLockOneShardAtATime(t *testing.T) {
	hub := wsroom.New()
	locks := locksOf(hub)
	for name, list := range map[string]func(){
		"roomNames": func() { hub.Rooms() },
		"members":   func() { hub.Members("a") },
		"connsOf": func() {
			for range hub.Conns() {
			}
		},
		"len":      func() { hub.Len() },
		"snapshot": func() { hub.ToAll().Close(1000, "") },
	} {
		for _, i := range []int{0, 17, len(locks.mus) - 1} {
			if name == "members" {
				i = locks.index("a")
			}
			held, done := locks.mus[i], make(chan struct{})
			held.Lock()
			go func() {
				defer close(done)
				list()
			}()
			blocked(t, name)
			if set := locks.locked(); set != 1<<i {
				t.Errorf("%s locks %064b", name, set)
			}
			held.Unlock()
			<-done
		}
	}
}

// roomsOf returns n names of rooms, and the set of their shards.
func (l locks) roomsOf(n int) (rooms []string, shards uint64) {
	for i := range n {
		rooms = append(rooms, fmt.Sprint("room ", i))
		shards |= 1 << l.index(rooms[i])
	}
	return rooms, shards
}

// A message to several rooms waits for the locks of their shards, and takes no others.
func TestSeveralRoomsLockTheirShards(t *testing.T) {
	hub := wsroom.New()
	locks := locksOf(hub)
	for _, n := range []int{2, 10, 30} {
		rooms, shards := locks.roomsOf(n)
		last := 63
		for shards>>last == 0 {
			last--
		}
		held, done := locks.mus[last], make(chan error)
		held.Lock()
		go func() { done <- hub.To(rooms...).SendText("hello") }()
		blocked(t, "sendToSeveral")
		if set := locks.locked(); set != shards {
			t.Errorf("%d rooms lock %064b, want %064b", n, set, shards)
		}
		held.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A message to many rooms needs no more objects than one to two.
func TestSeveralRoomsAllocateLittle(t *testing.T) {
	if kit.UnderRace() {
		t.Skip("with the race detector a sync.Pool drops some of what it is given")
	}
	hub := wsroom.New()
	for _, n := range []int{2, 10, 100} {
		rooms, _ := locksOf(hub).roomsOf(n)
		if got := testing.AllocsPerRun(1000, func() { _ = hub.To(rooms...).SendText("hello") }); got > 6 {
			t.Errorf("%d rooms: %.0f objects", n, got)
		}
	}
}
