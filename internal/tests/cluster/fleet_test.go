package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

var (
	fleetTime = flag.Duration("fleet.time", time.Second, "for how long TestFleetDoesAsTheModelDoes plays")
	fleetSeed = flag.Uint64("fleet.seed", 0, "the one game that it plays; 0: many")
)

const (
	fleetRooms   = 4
	fleetNames   = 5  // identities
	fleetSailors = 14 // at a time
	fleetSteps   = 250
)

// fleet is some nodes, the ships, over a broker that fails in all the ways that it may, their clients, the
// sailors, and what the model knows of what they must get.
type fleet struct {
	t       *testing.T
	rnd     *rand.Rand
	local   bool // DeliverLocally
	kept    int  // how many messages WithHistory keeps; 0: it isn't used
	faults  bool // of the radios, beside outages, and lost answers of the store
	server  *brokertest.Memory
	store   *brokertest.Memory // of presence
	ships   []*ship
	sailors []*sailor // all there ever were
	signals []*flare

	tick    atomic.Int64 // rises with each step
	mu      sync.Mutex   // guards the rest
	gaps    []gap
	present map[string]int // by room and identity: joins less leaves that were told
}

// ship is a node. The next of its place in the fleet is another one.
type ship struct {
	hub   *wsroom.Hub
	radio *radio
	store *severed
	away  bool
	sunk  bool // not all that it had accepted need arrive
}

// sailor is a client.
type sailor struct {
	ship     *ship
	client   *wsroomtest.Client
	conn     *wsroom.Conn
	name     string
	rooms    map[string]int64 // since when
	stays    []stay           // that are over, and in the end all
	received []string
}

type stay struct {
	room     string
	from, to int64
}

// flare is a message.
type flare struct {
	text    string
	ship    *ship
	rooms   []string // nil: all
	except  *sailor
	err     error
	sent    int64
	settled int64 // by when it has arrived; 0: not yet
}

type gap struct {
	hub  *wsroom.Hub
	room string
	at   int64
}

// radio is a ship's broker.
type radio struct {
	*brokertest.Node
	fleet *fleet
	mu    sync.Mutex // guards rnd
	rnd   *rand.Rand
}

// draw returns true once in n times, and a time up to most, if there are to be faults.
func (r *radio) draw(n int, most time.Duration) (bool, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fleet.faults || r.rnd.IntN(n) > 0 {
		return false, 0
	}
	return true, time.Duration(r.rnd.Int64N(int64(most)))
}

// Publish is slow, or fails before or after the data is published, or publishes it twice, at once or later.
func (r *radio) Publish(ctx context.Context, topic string, data []byte) error {
	return r.publish(ctx, data, func(ctx context.Context, data []byte) error { return r.Node.Publish(ctx, topic, data) })
}

// Keep has the faults of Publish.
func (r *radio) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	return r.publish(ctx, data, func(ctx context.Context, data []byte) error { return r.Node.Keep(ctx, topic, data, n, d) })
}

func (r *radio) publish(ctx context.Context, data []byte, publish func(context.Context, []byte) error) error {
	if slow, d := r.draw(10, 300*time.Millisecond); slow {
		time.Sleep(d)
	}
	if fails, _ := r.draw(20, time.Second); fails {
		return kit.ErrDown
	}
	err := publish(ctx, data)
	if again, d := r.draw(20, 2*time.Second); again && err == nil {
		data = slices.Clone(data)
		time.AfterFunc(d, func() { _ = publish(context.Background(), data) }) // it may be away by then
	}
	if fails, _ := r.draw(20, time.Second); fails {
		return kit.ErrDown
	}
	return err
}

// Subscribe is slow, while deliveries come in, or fails.
func (r *radio) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if fails, _ := r.draw(10, time.Second); fails {
		return nil, kit.ErrDown
	}
	stop, err := r.Node.Subscribe(ctx, topic, deliver, lost)
	if slow, d := r.draw(4, 500*time.Millisecond); slow {
		time.Sleep(d)
	}
	return stop, err
}

// Follow has the faults of Subscribe.
func (r *radio) Follow(ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error)) (func(), error) {
	if fails, _ := r.draw(10, time.Second); fails {
		return nil, kit.ErrDown
	}
	stop, err := r.Node.Follow(ctx, topic, n, deliver, live, lost)
	if slow, d := r.draw(4, 500*time.Millisecond); slow {
		time.Sleep(d)
	}
	return stop, err
}

// launch makes a ship, with one sailor.
func (f *fleet) launch() *ship {
	s := &ship{store: &severed{PresenceStore: f.store}}
	s.radio = &radio{Node: f.server.Open(), fleet: f, rnd: rand.New(rand.NewPCG(f.rnd.Uint64(), 0))}
	opts := []wsroom.Option{
		wsroom.WithBroker(s.radio), wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(1<<16, 1<<26),
		wsroom.WithPresenceStore(s.store), wsroom.WithPresenceGrace(time.Second),
		wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Query().Get("as") }),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { f.tell(room, m, 1) }),
		wsroom.OnMemberLeave(func(room string, m wsroom.Member) { f.tell(room, m, -1) }),
		wsroom.OnGap(func(room string, _ error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.gaps = append(f.gaps, gap{s.hub, room, f.tick.Load()})
		}),
	}
	if f.local {
		opts = append(opts, wsroom.WithOutage(wsroom.DeliverLocally))
	}
	if f.kept > 0 {
		opts = append(opts, wsroom.WithHistory(f.kept, 1<<20, time.Minute), wsroom.WithResumeKey(make([]byte, 32)))
	}
	s.hub = wsroom.New(opts...)
	wsroomtest.CheckHub(f.t, s.hub)
	f.board(s)
	return s
}

func (f *fleet) tell(room string, m wsroom.Member, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.present[room+" "+m.Identity] += n
}

// board adds a sailor.
func (f *fleet) board(on *ship) {
	f.t.Helper()
	s := &sailor{ship: on, name: fmt.Sprint("s", f.rnd.IntN(fleetNames)), rooms: map[string]int64{}}
	home := fmt.Sprint("/home", len(f.sailors))
	s.client = wsroomtest.Dial(f.t, on.hub, home+"?as="+s.name, wsroomtest.WithName(home))
	s.conn = kit.Member(f.t, on.hub, home)
	synctest.Wait() // until OnConnect's time is over, in which the marks go before what the rooms get
	s.rooms[home] = f.tick.Load()
	f.sailors = append(f.sailors, s)
}

// crew are the sailors of a ship, or all, who are still there.
func (f *fleet) crew(on *ship) (crew []*sailor) {
	for _, s := range f.sailors {
		if s.conn != nil && (on == nil || s.ship == on) {
			crew = append(crew, s)
		}
	}
	return crew
}

// gone notes that a sailor isn't in a room any more. What comes for the room after the mark comes too late.
func (s *sailor) gone(room string, at int64) {
	s.stays = append(s.stays, stay{room, s.rooms[room], at})
	delete(s.rooms, room)
}

// ends notes that a sailor's connection ends.
func (f *fleet) ends(s *sailor) {
	for room := range s.rooms {
		s.gone(room, f.tick.Load())
	}
	s.conn = nil
}

func (f *fleet) room() string { return fmt.Sprint("/", f.rnd.IntN(fleetRooms)) }

// say sends a signal.
func (f *fleet) say(from *ship, except *sailor, rooms ...string) {
	sig := &flare{text: fmt.Sprint(len(f.signals)), ship: from, rooms: rooms, except: except, sent: f.tick.Load()}
	target := from.hub.To(rooms...)
	if rooms == nil {
		target = from.hub.ToAll()
	}
	if except != nil {
		target = target.Except(except.conn)
	}
	sig.err = target.SendText(sig.text)
	f.signals = append(f.signals, sig)
}

// step does one thing at random.
func (f *fleet) step() {
	f.tick.Add(1)
	at := f.rnd.IntN(len(f.ships))
	on, crew := f.ships[at], f.crew(nil)
	s := crew[f.rnd.IntN(len(crew))]
	switch n := f.rnd.IntN(1000); {
	case n < 450:
		f.say(on, nil, f.room())
	case n < 500:
		f.say(on, s, f.room())
	case n < 540:
		f.say(on, nil)
	case n < 600:
		f.say(on, s, f.room(), f.room())
	case n < 700:
		f.join(s, f.room())
	case n < 780:
		f.leave(s, f.room())
	case n < 800 && len(crew) < fleetSailors && !on.away:
		f.board(on)
	case n < 815 && len(f.crew(s.ship)) > 1:
		f.ends(s)
		s.client.CloseNow()
	case n < 830:
		on.away = true
		on.radio.Down()
	case n < 860:
		on.away = false
		on.radio.Up()
	case n < 865:
		f.server.Lose(1 + f.rnd.IntN(3))
	case n < 870:
		on.store.cut.Store(!f.faults)
		on.store.deaf.Store(f.faults)
	case n < 885:
		on.store.cut.Store(false)
		on.store.deaf.Store(false)
	case n < 892 && !on.away:
		f.ships[at] = f.replace(on, n < 887)
	case n < 930:
		synctest.Wait()
	case n < 990:
		f.pause(100 * time.Millisecond)
	case n < 996:
		f.pause(8 * time.Second)
	default:
		f.settle()
	}
}

func (f *fleet) join(s *sailor, room string) {
	_ = s.conn.SendText("join " + room) // its connection lives
	err := s.conn.Join(room)
	if _, in := s.rooms[room]; err == nil && !in {
		s.rooms[room] = f.tick.Add(1)
	}
	if err != nil && !s.ship.away && !f.faults {
		f.t.Errorf("Join: %v", err)
	}
}

func (f *fleet) leave(s *sailor, room string) {
	if _, in := s.rooms[room]; in {
		s.gone(room, f.tick.Load())
	}
	if err := s.conn.Leave(room); err != nil {
		f.t.Errorf("Leave: %v", err)
	}
	_ = s.conn.SendText("leave " + room)
}

// replace shuts a ship down, or has it vanish, and launches another.
func (f *fleet) replace(old *ship, vanish bool) *ship {
	for _, s := range f.crew(old) {
		f.ends(s)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Second)
	defer cancel()
	if vanish {
		old.radio.Down()
		old.store.cut.Store(true)
		cancel()
	}
	if err := old.hub.Shutdown(ctx); err != nil {
		old.sunk = true
	}
	return f.launch()
}

// settle waits until all is calm, and compares.
func (f *fleet) settle() {
	for _, s := range f.ships {
		s.away = false
		s.radio.Up()
		s.store.cut.Store(false)
		s.store.deaf.Store(false)
	}
	time.Sleep(time.Minute) // of presence: a lease, and until somebody finds that it has lapsed
	synctest.Wait()
	for _, sig := range f.signals {
		if sig.settled == 0 {
			sig.settled = f.tick.Add(1)
		}
	}
	f.checkPresence()
}

func play(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("play it again with -fleet.seed=%d", seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), server: brokertest.NewMemory(), store: brokertest.NewMemory(), present: map[string]int{}}
		f.local, f.faults = seed%3 == 0, seed%2 == 0
		if seed%3 == 1 {
			f.kept = []int{10, 1000}[seed/3%2]
		}
		for range 2 + f.rnd.IntN(3) {
			f.ships = append(f.ships, f.launch())
		}
		for range fleetSteps {
			f.step()
		}
		f.settle()
		f.check()
	})
}

// Whatever becomes of the broker, the store and the nodes: nothing comes twice, out of order, to who isn't
// there or after Leave; nothing is missing unless a gap was reported; and in the end all nodes agree on who
// is present. Play longer with -fleet.time=1m.
func TestFleetDoesAsTheModelDoes(t *testing.T) {
	if *fleetSeed > 0 {
		play(t, *fleetSeed)
		return
	}
	for begin := time.Now(); ; {
		play(t, 1+rand.Uint64N(1<<32))
		// Many timers in bubbles crash Go 1.26's race detector (golang.org/issue/78156): one game does there.
		if kit.UnderRace() || time.Since(begin) >= *fleetTime {
			return
		}
	}
}

func (f *fleet) pause(most time.Duration) { time.Sleep(time.Duration(f.rnd.Int64N(int64(most)))) }
