package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom"
)

const drainWindow = 2 * time.Second

// plan is what to do.
type plan struct {
	members int
	length  time.Duration
}

// soak is one run: hubs in this process, a bad network and members who come over it.
type soak struct {
	plan
	addr     string
	houses   []*house
	proxy    *proxy
	accounts sync.Map // by id: those that a request may still name, or that aren't audited
	lastID   atomic.Int64
	peak     usage

	mu   sync.Mutex // guards sums
	sums sums
}

// enroll makes the account known to the hub, by a number that the request gives.
func (s *soak) enroll(a *account) (id int64) {
	id = s.lastID.Add(1)
	s.accounts.Store(id, a)
	a.id = id
	return id
}

func (s *soak) account(r *http.Request) *account {
	id, _ := strconv.ParseInt(r.URL.Query().Get("account"), 10, 64)
	a, ok := s.accounts.Load(id)
	if !ok {
		return nil
	}
	return a.(*account)
}

// sideDone audits an account whose both sides are done. Of one that the hub never saw the second side
// isn't: forgetUnseen drops it.
func (s *soak) sideDone(a *account) {
	if !a.done() {
		return
	}
	s.accounts.Delete(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.audit(&s.sums)
}

func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums.fault(fmt.Sprintf(format, args...))
}

func (s *soak) faultUnless(ok bool, format string, args ...any) {
	if !ok {
		s.fault(format, args...)
	}
}

// Write takes the log of hubs and server: there is to be none.
func (s *soak) Write(line []byte) (int, error) {
	s.fault("log: %s", line)
	return len(line), nil
}

// about is a random time around d.
func (s *soak) about(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}

// sleep waits about d and reports whether ctx isn't done.
func (s *soak) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(s.about(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run plays the plan and returns the sums, with whatever didn't add up among their faults.
func run(ctx context.Context, p plan) *soak {
	s := &soak{plan: p}
	s.sums.ended, s.sums.ends = map[string]int{}, map[string]int{}
	warmUp()
	before := measure()
	srv, err := s.serve()
	if err != nil {
		s.fault("%v", err)
		return s
	}
	s.play(ctx)
	if err := errors.Join(srv.Close(), s.proxy.Close()); err != nil {
		s.fault("%v", err)
	}
	s.forgetUnseen()
	s.checkLeaks(before)
	return s
}

func (s *soak) serve() (*http.Server, error) {
	mux := http.NewServeMux()
	rooms := max(4, s.members/45) // of each house, so that they have some 15 to 30 members
	for name, policy := range map[string]wsroom.Overflow{"close": wsroom.CloseSlow, "oldest": wsroom.DropOldest, "newest": wsroom.DropNewest} {
		h := newHouse(s, name, policy, rooms)
		s.houses = append(s.houses, h)
		mux.Handle("/"+name+"/{room}", h.hub)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	srv := &http.Server{Handler: mux, ErrorLog: log.New(s, "", 0), ReadHeaderTimeout: 10 * time.Second, ConnState: smallBuffer}
	go srv.Serve(ln) // until Close
	s.proxy, err = newProxy(s.addr)
	return srv, err
}

// smallBuffer keeps the kernel from hiding for long that a client doesn't read.
func smallBuffer(c net.Conn, state http.ConnState) {
	if t, ok := c.(*net.TCPConn); ok && state == http.StateNew {
		_ = t.SetWriteBuffer(16 << 10) // a larger one does no harm but that
	}
}

// play lets members and houses do their work for the plan's length, and shuts down.
func (s *soak) play(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx) // a deadline would look like a timeout of who dials then
	defer cancel()
	defer time.AfterFunc(s.length, cancel).Stop()
	var work sync.WaitGroup
	for i := range s.members {
		m := s.newMember(i)
		work.Go(func() {
			if s.sleep(ctx, 5*time.Second) { // they don't all come at once
				m.live(ctx)
			}
		})
	}
	for _, h := range s.houses {
		work.Go(func() { h.work(ctx, 20*time.Millisecond) })
	}
	work.Go(func() {
		for s.sleep(ctx, time.Second) {
			s.peak = s.peak.max(measure())
		}
	})
	<-ctx.Done()
	s.stop()
	work.Wait()
}

func (s *soak) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drainWindow+20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range s.houses {
		wg.Go(func() { h.stop(ctx) })
	}
	wg.Wait()
}

// forgetUnseen drops the accounts of clients that no hub has seen. No other may be left.
func (s *soak) forgetUnseen() {
	s.accounts.Range(func(id, v any) bool {
		a := v.(*account)
		a.mu.Lock()
		opened := a.opened
		a.mu.Unlock()
		s.faultUnless(!opened, "account %d isn't audited", id)
		s.accounts.Delete(id)
		return true
	})
}
