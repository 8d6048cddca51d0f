package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// millionName is of what shows how a hub grows: members without sockets in one process, up to a million, and
// sockets as far as the machine's limits allow. It runs only if -scenario names it.
const millionName = "million"

// A million says how many members there are, in how many rooms, and how long each part takes.
type million struct {
	members int
	rooms   int
	large   int           // of the rooms, those of a hundred members; the other members are spread over the other rooms
	beat    time.Duration // the heartbeat's interval
	part    time.Duration
	drain   time.Duration

	sockets []int         // how many, in turn
	idle    time.Duration // with each number of them
}

const (
	largeRoom = 100             // members
	patience  = 5 * time.Minute // for what depends on how many members there are
)

// millionOf returns the plan for so many members.
func millionOf(members int, quick bool) million {
	m := million{members: members, rooms: max(20, members/10), large: max(1, members/1000),
		beat: 25 * time.Second, part: 30 * time.Second, drain: 30 * time.Second, idle: time.Minute}
	for n := 2500; n < members; n *= 2 {
		m.sockets = append(m.sockets, n)
	}
	m.sockets = append(m.sockets, members)
	if quick {
		m.beat, m.part, m.drain, m.idle = 2*time.Second, 3*time.Second, 3*time.Second, 5*time.Second
		m.sockets = []int{min(500, members), min(1000, members)}
	}
	return m
}

// runMillion measures both and prints their tables.
func runMillion(ctx context.Context, m million) error {
	run := &millionRun{million: m, rows: [][]string{{"members without sockets", ""}}}
	err := run.run(ctx)
	fmt.Println(markdown(run.rows, 1))
	if err != nil {
		return err
	}
	run = nil
	debug.FreeOSMemory()
	return runSockets(ctx, m)
}

// A millionRun is the members without sockets, and what was measured of them.
type millionRun struct {
	million
	hub   *wsroom.Hub
	fleet memoryFleet
	conns []*wsroom.Conn
	rows  [][]string
}

// note adds a figure.
func (r *millionRun) note(what, format string, args ...any) {
	figure := fmt.Sprintf(format, args...)
	fmt.Fprintf(os.Stderr, "million: %s: %s\n", what, figure)
	r.rows = append(r.rows, []string{what, figure})
}

func (r *millionRun) run(ctx context.Context) error {
	r.note("members, rooms", "%s in %s, %s of them of %d", thousands(float64(r.members)), thousands(float64(r.rooms)),
		thousands(float64(r.large)), largeRoom)
	var next atomic.Int64
	r.conns = make([]*wsroom.Conn, r.members)
	r.hub = wsroom.New(wsroom.WithHeartbeat(r.beat, 10*time.Second), wsroom.WithDrain(r.drain), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		r.conns[next.Add(1)-1] = c
		return nil
	}))
	r.fleet.rooms = make([]memoryRoom, r.large)
	for i := range r.fleet.rooms {
		r.fleet.rooms[i].done = make(chan time.Time, 1)
	}

	before := takePauses()
	for _, step := range []func(context.Context) error{r.connect, r.rest, r.talk, r.talkAndMove, r.toAll, r.shutdown} {
		if err := errors.Join(step(ctx), context.Cause(ctx)); err != nil {
			return err
		}
	}
	if ended := r.hub.Causes().Ended; ended["shutdown"] < r.members {
		r.note("connections that ended before", "%v: the machine was too busy", ended)
	}
	count, most := takePauses().since(before)
	r.note("pauses of the garbage collection", "%d in all, the longest at most %s ms", count, number(most.Seconds()*1e3))
	return nil
}

// roomOf returns the room of a member.
func (r *millionRun) roomOf(member int) int {
	if of := member / largeRoom; of < r.large {
		return of
	}
	return r.large + member%max(1, r.rooms-r.large)
}

// connect lets all members in, through the handler of a mux.
func (r *millionRun) connect(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /room/{room}", r.hub)
	before, begin := takeFootprint(), takeSpent()
	var next atomic.Int64
	var connecting sync.WaitGroup
	var failed atomic.Int64
	for range 2 * runtime.GOMAXPROCS(0) {
		connecting.Go(func() {
			for i := int(next.Add(1)) - 1; i < r.members && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				room := r.roomOf(i)
				w := &memoryWriter{conn: newMemoryConn(&r.fleet, uint32(room)), header: http.Header{}}
				if mux.ServeHTTP(w, upgradeRequest("/room/"+strconv.Itoa(room))); w.status >= 400 {
					failed.Add(1)
				}
			}
		})
	}
	connecting.Wait()
	end, after := takeSpent(), takeFootprint()
	if n := failed.Load(); n > 0 || r.hub.Len() != r.members {
		return fmt.Errorf("million: %d of %d members connected, %d were refused", r.hub.Len(), r.members, n)
	}

	n := float64(r.members)
	r.note("connects a second", "%s; %s µs of processor time each", thousands(n/end.at.Sub(begin.at).Seconds()), number(micros(end.cpu-begin.cpu)/n))
	r.note("memory in all", "%s MB resident", thousands(float64(after.resident)/1e6))
	r.note("memory a member", "%s KB resident: %s of heap (24 bytes of them the benchmark's) and %s of stacks",
		number(float64(after.resident-before.resident)/n/1e3), number(float64(after.heap-before.heap)/n/1e3),
		number(float64(after.stacks-before.stacks)/n/1e3))
	return nil
}

// upgradeRequest is a request as net/http hands it to a handler.
func upgradeRequest(path string) *http.Request {
	return &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, Host: "million", RemoteAddr: "127.0.0.1:1",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Connection":            {"Upgrade"},
			"Upgrade":               {"websocket"},
			"Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key":     {"dGhlIHNhbXBsZSBub25jZQ=="},
		},
	}
}

// rest measures what the heartbeats cost while nothing is sent. Before, all members have been pinged once.
func (r *millionRun) rest(ctx context.Context) error {
	r.await(ctx, func() bool { return r.fleet.pings.Load() >= int64(r.members) }, patience)
	before, pings := takeSpent(), r.fleet.pings.Load()
	if err := pause(ctx, r.part); err != nil {
		return err
	}
	after := takeSpent()
	pings = r.fleet.pings.Load() - pings
	seconds := after.at.Sub(before.at).Seconds()
	r.note("heartbeats alone", "%s pings a second; %s of a processor, %s of it garbage collection; %s µs a ping",
		thousands(float64(pings)/seconds), percent(after.cpu-before.cpu, seconds), percent(after.gc-before.gc, seconds),
		number(micros(after.cpu-before.cpu)/max(1, float64(pings))))
	return nil
}

// await waits until ok is true, or for the time.
func (r *millionRun) await(ctx context.Context, ok func() bool, most time.Duration) {
	for begin := time.Now(); !ok() && time.Since(begin) < most && ctx.Err() == nil; {
		_ = pause(ctx, 50*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func percent(d time.Duration, seconds float64) string {
	return fmt.Sprintf("%.1f %%", 100*d.Seconds()/seconds)
}

// talk measures a message to a room of a hundred, 200 a second, beside the heartbeats.
func (r *millionRun) talk(ctx context.Context) error {
	times, err := r.messages(ctx)
	r.noteTimes("a message to a room of 100, with heartbeats", times)
	return err
}

// talkAndMove is talk while members move between rooms as fast as one goroutine can.
func (r *millionRun) talkAndMove(ctx context.Context) error {
	moving, stop := context.WithCancel(ctx)
	var moves atomic.Int64
	var mover sync.WaitGroup
	mover.Go(func() {
		random := rand.New(rand.NewPCG(1, 2))
		for moving.Err() == nil {
			c, room := r.conns[random.IntN(len(r.conns))], strconv.Itoa(random.IntN(r.rooms))
			if c.Join("/moved/"+room) == nil && c.Leave("/moved/"+room) == nil {
				moves.Add(1)
			}
		}
	})
	begin := time.Now()
	times, err := r.messages(ctx)
	stop()
	mover.Wait()
	r.note("joins and leaves", "%s of each a second, by one goroutine", thousands(float64(moves.Load())/time.Since(begin).Seconds()))
	r.noteTimes("a message to a room of 100 meanwhile", times)
	return err
}

// messages sends to one large room after the other, and returns how long each message took to all of its members.
func (r *millionRun) messages(ctx context.Context) (times []time.Duration, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < r.part; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return times, context.Cause(ctx)
		}
		i := rand.IntN(r.large)
		room := &r.fleet.rooms[i]
		sent := time.Now()
		room.left.Store(int32(r.sizeOf(i)))
		if err := r.hub.SendTextToRoom("/room/"+strconv.Itoa(i), "what a room of a hundred hears"); err != nil {
			return times, err
		}
		select {
		case at := <-room.done:
			times = append(times, at.Sub(sent))
		case <-time.After(20 * time.Second):
			return times, errors.New("million: a message didn't arrive")
		}
	}
	return times, nil
}

// sizeOf returns how many members a large room has.
func (r *millionRun) sizeOf(room int) int {
	return min(largeRoom, r.members-room*largeRoom)
}

func (r *millionRun) noteTimes(what string, times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	r.note(what, "p50 %s ms, p99 %s ms, longest %s ms", number(times[len(times)/2].Seconds()*1e3),
		number(times[len(times)*99/100].Seconds()*1e3), number(times[len(times)-1].Seconds()*1e3))
}

// toAll measures a message to everybody.
func (r *millionRun) toAll(ctx context.Context) error {
	var sends, times []time.Duration
	for range 3 {
		before, begin := r.fleet.messages.Load(), time.Now()
		if err := r.hub.SendTextToAll("what all hear"); err != nil {
			return err
		}
		sends = append(sends, time.Since(begin))
		for r.fleet.messages.Load() < before+int64(r.hub.Len()) {
			if err := pause(ctx, time.Millisecond); err != nil || time.Since(begin) > patience {
				return cmp.Or(err, errors.New("million: a message didn't reach all"))
			}
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(sends)
	slices.Sort(times)
	r.note("a message to all", "queued after %s ms, with all after %s ms", number(sends[1].Seconds()*1e3), number(times[1].Seconds()*1e3))
	return nil
}

// shutdown ends the hub, with its drain.
func (r *millionRun) shutdown(ctx context.Context) error {
	before, n := takeSpent(), r.hub.Len()
	if err := r.hub.Shutdown(ctx); err != nil {
		return err
	}
	after := takeSpent()
	r.note("Shutdown", "%.1f s with a drain of %.0f s; %s µs of processor time a member", after.at.Sub(before.at).Seconds(),
		r.drain.Seconds(), number(micros(after.cpu-before.cpu)/float64(r.members)))
	r.conns = nil
	left := takeFootprint()
	r.note("memory after it", "%s MB of heap and stacks", thousands(float64(left.heap+left.stacks)/1e6))
	if got := r.fleet.closes.Load(); got < int64(n) {
		return fmt.Errorf("million: %d of %d members got a close frame", got, n)
	}
	return nil
}

// A footprint is the memory that this process uses.
type footprint struct {
	heap, stacks int64 // in use
	resident     int64
}

// takeFootprint collects the garbage first.
func takeFootprint() footprint {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{heap: int64(m.HeapAlloc), stacks: int64(m.StackInuse), resident: residentNow()}
}

// A spent is the processor time that this process has used by then.
type spent struct {
	at      time.Time
	cpu, gc time.Duration // gc is a part of cpu
}

func takeSpent() spent {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	return spent{time.Now(), ownTime(), time.Duration(sample[0].Value.Float64() * float64(time.Second))}
}

// residentNow is the anonymous resident memory of this process, or 0.
func residentNow() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	resident, _ := server.ResidentOf(string(status))
	return resident
}

// pauses are all pauses of the garbage collection so far.
type pauses struct{ *metrics.Float64Histogram }

func takePauses() pauses {
	sample := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(sample)
	return pauses{sample[0].Value.Float64Histogram()}
}

// since returns how many pauses there have been since, and a bound of the longest.
func (p pauses) since(before pauses) (count uint64, most time.Duration) {
	for i, n := range p.Counts {
		if n -= before.Counts[i]; n > 0 {
			count += n
			most = time.Duration(p.Buckets[i+1] * float64(time.Second))
		}
	}
	return count, most
}
