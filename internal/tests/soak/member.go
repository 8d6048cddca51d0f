package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// manners are how a member behaves.
type manners struct {
	talks   time.Duration // a message every so often, on average
	life    time.Duration // after which it goes, on average, and comes back
	stalls  bool          // stops reading now and then
	floods  bool          // sends as fast as it can
	lies    bool          // breaks the protocol in the end, instead of closing
	proxied bool
	busy    bool // joins the busy room
}

// mannersOf spreads the kinds of members: of twenty, half stay and chat, four come and go, two stall,
// one floods, one lies, and two chat from far away; a few of the others do so, too. Nobody stays for
// ever, and so no account grows for ever.
func mannersOf(i int) manners {
	m := manners{talks: 15 * time.Second, life: 10 * time.Minute, proxied: i%7 == 0}
	switch i % 20 {
	case 10, 11, 12, 13:
		m.life = 8 * time.Second
	case 14, 15:
		m.stalls, m.busy, m.life = true, true, 2*time.Minute
	case 16:
		m.floods = true
	case 17:
		m.lies, m.life = true, 4*time.Second
	case 18, 19:
		m.proxied = true
	}
	m.busy = m.busy || i%10 == 0
	return m
}

// member is one seat in the soak, taken by one connection after the other.
type member struct {
	manners
	soak  *soak
	house *house
	from  net.IP
}

func (s *soak) newMember(i int) *member {
	return &member{
		manners: mannersOf(i), soak: s, house: s.houses[i%len(s.houses)],
		from: net.IPv4(127, byte(1+i%250), byte(1+i/250%250), byte(1+i%200)),
	}
}

// live connects again and again until ctx is done.
func (m *member) live(ctx context.Context) {
	for ctx.Err() == nil {
		a := newAccount()
		if err := m.visit(ctx, a); err != nil && ctx.Err() == nil {
			m.soak.faultUnless(errors.Is(err, errRefused) || m.proxied, "dial: %v", err)
		}
		m.soak.sideDone(a)
		m.soak.sleep(ctx, time.Second)
	}
}

// visit is one connection's life.
func (m *member) visit(ctx context.Context, a *account) error {
	addr := m.soak.addr
	if m.proxied {
		addr = m.soak.proxy.Addr().String()
	}
	room := roomName(rand.IntN(len(m.house.rooms) - 1))
	id := m.soak.enroll(a)
	c, err := dial(ctx, m.from, addr, fmt.Sprintf("/%s/%s?account=%d", m.house.name, room, id))
	if err != nil {
		return err
	}
	defer c.Close()
	talking, quiet := context.WithCancel(ctx)
	went := make(chan bool)
	go func() { went <- m.talk(talking, c) }()
	err = m.listen(c, a)
	heard := time.Now()
	quiet()
	fair := !<-went && !m.proxied && !m.stalls
	a.mu.Lock()
	defer a.mu.Unlock()
	a.code, a.fair, a.err, a.heard = c.code, fair, err, heard
	return nil
}

// stallTime is how long a stalling member reads, and doesn't read, on average: in the busy room that is
// more than its queue and the kernel's buffers hold.
const stallTime = 4 * time.Second

// listen reads until the connection ends, with pauses if the member stalls.
func (m *member) listen(c *client, a *account) error {
	pause := time.Now().Add(m.soak.about(stallTime))
	for {
		if m.stalls && time.Now().After(pause) {
			time.Sleep(m.soak.about(stallTime))
			pause = time.Now().Add(m.soak.about(stallTime))
		}
		text, err := c.next()
		if err != nil {
			return err
		}
		a.take(text)
	}
}

// take notes a message: a room's name, a number, and text, which may tell that the member has left a
// room after the message of a number.
func (a *account) take(text string) {
	room, rest, _ := strings.Cut(text, " ")
	digits, body, _ := strings.Cut(rest, " ")
	number, err := strconv.Atoi(digits)
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.fault("came: %.50q", text)
		return
	}
	a.got(room, number)
	if left, ok := strings.CutPrefix(body, "left "); ok {
		var name string
		var last int
		if _, err := fmt.Sscan(left, &name, &last); err == nil {
			a.knows(name, last)
		}
	}
}

// talk sends what the member has to say until ctx is done, or goes when its time has come. It reports
// whether it went.
func (m *member) talk(ctx context.Context, c *client) (went bool) {
	if m.busy && c.send(0x81, "join "+roomName(0)) != nil {
		return false
	}
	end := time.Now().Add(m.soak.about(m.life))
	for time.Now().Before(end) {
		pause := max(min(m.talks, time.Until(end)), time.Millisecond)
		if !m.soak.sleep(ctx, pause) || m.say(ctx, c) != nil {
			return false
		}
	}
	switch {
	case m.lies:
		_ = c.raw(lies[rand.IntN(len(lies))]) // the hub closes
	case rand.IntN(2) == 0:
		_ = c.send(0x88, "\x03\xe8") // the hub answers
	default:
		c.drop()
	}
	return true
}

// say sends one thing, or many.
func (m *member) say(ctx context.Context, c *client) error {
	room := roomName(rand.IntN(len(m.house.rooms) - 1))
	if m.floods {
		for range 500 {
			if err := c.send(0x81, "flood"); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
	switch rand.IntN(6) {
	case 0:
		return c.send(0x81, "join "+room)
	case 1:
		return c.send(0x81, "leave "+room)
	case 2:
		return c.send(0x81, "ask")
	case 3: // in two fragments with a ping in between
		return errors.Join(c.send(0x01, "sa"), c.send(0x89, "?"), c.send(0x80, "y"))
	default:
		return c.send(0x81, "say")
	}
}

// lies are what liars send last.
var lies = [][]byte{
	{0x81, 1, 'x'},                                      // no mask
	{0x83, 0x80, 0, 0, 0, 0},                            // a reserved opcode
	{0xf1, 0x80, 0, 0, 0, 0},                            // RSV
	{0x81, 0x81, 0, 0, 0, 0, 0xff},                      // not UTF-8
	{0x80, 0x80, 0, 0, 0, 0},                            // a continuation of nothing
	{0x09, 0x80, 0, 0, 0, 0},                            // a ping in fragments
	{0x88, 0x81, 0, 0, 0, 0, 3},                         // half a close code
	{0x82, 0xff, 0x7f, 0xff, 0, 0, 0, 0, 0, 0},          // no end to it
	{0x82, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0},          // less than nothing
	{0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 'a', 'b', 'c'}, // the rest never comes
	{0x01, 0x81, 0, 0, 0, 0, 'a'},                       // nor the last fragment
	[]byte("GET / HTTP/1.1\r\nHost: soak\r\n\r\n"),
}
