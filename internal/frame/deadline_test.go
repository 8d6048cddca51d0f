package frame

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var tenSeconds = &Limits{Message: 10 * time.Second, Write: 10 * time.Second}

// A step of a peer: it pauses and then writes.
type step struct {
	pause time.Duration
	write []byte
}

func steps(pause time.Duration, writes ...[]byte) (all []step) {
	for _, w := range writes {
		all = append(all, step{pause, w})
	}
	return all
}

func bytewise(p []byte) (all [][]byte) {
	for i := range p {
		all = append(all, p[i:i+1])
	}
	return all
}

func repeat(n int, s ...step) (all []step) {
	for range n {
		all = append(all, s...)
	}
	return all
}

func concat(all ...[]step) (joined []step) {
	for _, s := range all {
		joined = append(joined, s...)
	}
	return joined
}

// begun is a message of which nothing but its first fragment has come.
var begun = step{time.Second, fromClient(0x01, "begun")}

func TestMessageTimeout(t *testing.T) {
	long, ping := fromClient(0x81, fill(200, 1)), fromClient(0x89, "ping")
	none := time.Duration(-1)
	for _, c := range []struct {
		name  string
		peer  []step
		after time.Duration // of the timeout, since the peer's first step; none if it never comes
	}{
		{"nothing", steps(time.Hour, nil), none},
		{"nothing after a message", steps(time.Hour, long, nil), none},
		{"nothing after half a header", steps(time.Minute, long[:1]), time.Minute + 10*time.Second},
		{"nothing after a header", steps(time.Minute, long[:8]), time.Minute + 10*time.Second},
		{"nothing after half a payload", steps(time.Minute, long[:100]), time.Minute + 10*time.Second},
		{"nothing after a fragment", []step{begun}, 11 * time.Second},
		{"a byte now and then", steps(time.Second, bytewise(long)...), 11 * time.Second},
		{"a byte every 100 ms", steps(100*time.Millisecond, bytewise(fromClient(0x82, fill(90, 1)))...), none},
		{"endless empty fragments", append([]step{begun}, repeat(10000, step{time.Millisecond, fromClient(0x00, "")})...), 11 * time.Second},
		{"pings between fragments", append([]step{begun}, repeat(20, step{time.Second, ping})...), 11 * time.Second},
		{"a message in time", concat(steps(9*time.Second, long[:50], long[50:]), steps(time.Hour, nil)), none},
		{"each message has its own time", repeat(50, steps(9*time.Second, long[:50], long[50:])...), none},
		{"the next begins with the end of one", steps(9*time.Second, long[:50], append(bytes.Clone(long[50:]), long[:50]...), long[50:], nil, nil), none},
		{"the last fragment ends it", concat([]step{begun}, steps(9*time.Second, fromClient(0x80, "")), steps(time.Hour, nil, long)), none},
		{"pings have their own time", repeat(50, steps(9*time.Second, ping[:3], ping[3:])...), none},
		{"an unfinished ping", steps(time.Second, ping[:3]), 11 * time.Second},
		{"an unfinished ping after a message in pieces", steps(9*time.Second, long[:50], long[50:], ping[:3]), 37 * time.Second},
		{"a large payload that stops", steps(time.Second, build(0x82, fill(1<<20, 1), 8, true)[:1<<19]), 11 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				wire, _ := newWire(server, nil, tenSeconds)
				begin := time.Now()
				var peer sync.WaitGroup
				peer.Go(func() {
					for _, s := range c.peer {
						time.Sleep(s.pause)
						if _, err := client.Write(s.write); err != nil {
							return
						}
					}
					if c.after == none {
						client.Close()
					}
				})
				err := readAll(wire)
				if timeout := errors.Is(err, os.ErrDeadlineExceeded); timeout != (c.after != none) || wire.Interrupted(err) {
					t.Errorf("ended by %v", err)
				}
				if after := time.Since(begin); c.after != none && after != c.after+extension {
					t.Errorf("timeout after %v, want %v", after, c.after+extension)
				}
				if !errors.Is(socketError(wire), err) {
					t.Errorf("socket error %v, want %v", socketError(wire), err)
				}
				client.Close()
				peer.Wait()
			})
		})
	}
}

// readAll reads, as coder/websocket does, first a little and then much, until an error.
func readAll(r io.Reader) (err error) {
	p := make([]byte, 1<<16)
	for i := 0; err == nil; i++ {
		_, err = r.Read(p[:1<<(i%17)])
	}
	return err
}

// Time in which nobody reads isn't the peer's.
func TestMessageTimeoutBeginsWithTheFirstWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		message := fromClient(0x81, "message")
		wire, _ := newWire(server, message[:7], tenSeconds)
		var p [100]byte
		if n, err := wire.Read(p[:]); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Hour)
		go func() {
			time.Sleep(9 * time.Second)
			client.Write(message[7:])
			client.Close()
		}()
		if n, err := wire.Read(p[:]); n != len(message)-7 || err != nil {
			t.Errorf("the rest, in time: %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		if _, err := wire.Read(p[:]); err != io.EOF {
			t.Errorf("after the message: %v", err)
		}
	})
}

// Where there is always something to read, the time is kept all the same.
func TestMessageTimeoutStopsAFlood(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, &Limits{Message: 50 * time.Millisecond, Write: patience})
		flood := bytes.Repeat(fromClient(0x00, ""), 1000)
		begin, done := time.Now(), make(chan error, 1)
		go func() {
			_, err := client.Write(fromClient(0x01, ""))
			for err == nil {
				_, err = client.Write(flood)
			}
		}()
		go func() { done <- readAll(wire) }()
		if err := receive(t, done, "the timeout"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended by %v", err)
		}
		if took := time.Since(begin); took < 50*time.Millisecond {
			t.Errorf("after %v", took)
		}
		wire.Kill()
	})
}

func TestNoDeadlineIsLeftForDrain(t *testing.T) {
	message := fromClient(0x81, fill(200, 1))
	for _, cut := range []int{1, 7, 100} {
		synctest.Test(t, func(t *testing.T) {
			server, client := net.Pipe()
			wire, _ := newWire(server, nil, tenSeconds)
			read := make(chan error)
			go func() { read <- readAll(wire) }()
			client.Write(message[:cut])
			time.Sleep(5 * time.Second)
			wire.Interrupt()
			if err := <-read; err != net.ErrClosed {
				t.Fatalf("interrupted: %v", err)
			}
			wire.Resume()
			go func() {
				time.Sleep(time.Hour)
				client.Write(append(bytes.Clone(message[cut:]), fromClient(0x01, "")...))
				time.Sleep(time.Hour)
				client.Write(fromClient(0x88, "")[:3])
				time.Sleep(time.Hour)
				client.Write(fromClient(0x88, "")[3:])
			}()
			begin := time.Now()
			wire.Drain()
			if took := time.Since(begin); took != 3*time.Hour || !wire.PeerClosing() {
				t.Errorf("drained for %v, peer closing %v", took, wire.PeerClosing())
			}
		})
	}
}

func TestWriteTimeout(t *testing.T) {
	for name, reads := range map[string]int{"nothing is read": 0, "a part is read": 500} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				wire, _ := newWire(server, nil, tenSeconds)
				go io.CopyN(io.Discard, client, int64(reads))
				wire.Lock()
				defer wire.Unlock()
				begin := time.Now()
				err := wire.Send(frameOf(0x82, fill(1000, 1), false))
				if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != 10*time.Second+extension {
					t.Errorf("%v after %v", err, took)
				}
				synctest.Wait()
				go io.Copy(io.Discard, client) // too late: a frame is cut
				if again := wire.Send(frameOf(0x82, "x", false)); again == nil || again.Error() != err.Error() {
					t.Errorf("a frame goes out behind a part of one: %v", again)
				}
				client.Close()
			})
		})
	}
}

func TestWriteTimeoutOfARawWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		wire, _ := newWire(server, nil, tenSeconds)
		ws := accept(t, wire, false)
		go io.CopyN(io.Discard, client, 500)
		begin := time.Now()
		err := ws.Write(t.Context(), 2, make([]byte, 1000))
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != 10*time.Second+extension {
			t.Errorf("%v after %v", err, took)
		}
		wire.Lock()
		defer wire.Unlock()
		go io.Copy(io.Discard, client)
		if err := wire.Send(frameOf(0x82, "x", false)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a frame goes out behind a part of one: %v", err)
		}
		client.Close()
		ws.CloseNow()
	})
}

// The write timeout is for a piece, so that a large message to a slow but living peer passes.
func TestLargeWriteToASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		wire, _ := newWire(server, nil, tenSeconds)
		frame := frameOf(0x82, fill(5*maxWrite, 1), false)
		got := make(chan []byte)
		go func() {
			var all []byte
			p := make([]byte, maxWrite)
			for len(all) < len(frame) {
				time.Sleep(9 * time.Second)
				n, err := io.ReadFull(client, p[:min(maxWrite, len(frame)-len(all))])
				if all = append(all, p[:n]...); err != nil {
					break
				}
			}
			got <- all
		}()
		wire.Lock()
		defer wire.Unlock()
		if err := wire.Send(frame); err != nil {
			t.Errorf("after %v", err)
		}
		if all := <-got; !bytes.Equal(all, frame) {
			t.Errorf("%d of %d bytes came", len(all), len(frame))
		}
		// No deadline is left behind.
		time.Sleep(time.Hour)
		go io.CopyN(io.Discard, client, 3)
		if err := wire.Send(frameOf(0x82, "x", false)); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestWriteTimeoutOfAFullSocket(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, _ := s.make(t)
		wire, _ := newWire(server, nil, &Limits{Message: patience, Write: 50 * time.Millisecond})
		wire.Lock()
		defer wire.Unlock()
		frame := frameOf(0x82, fill(maxWrite, 1), false)
		var err error
		begin := time.Now()
		for err == nil && time.Since(begin) < patience {
			begin = time.Now()
			err = wire.Send(frame)
		}
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took < 50*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		if again := wire.Send([]byte{0x82, 0}); !errors.Is(again, os.ErrDeadlineExceeded) {
			t.Errorf("afterwards: %v", again)
		}
	})
}

// A write that had to wait leaves no deadline to those after it.
func TestWriteDeadlineIsLifted(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		if !s.raw {
			return // sets a new one for each write
		}
		server, client := s.make(t)
		limits := &Limits{Message: patience, Write: patience}
		wire, _ := newWire(server, nil, limits)
		wire.Lock()
		defer wire.Unlock()
		frame := frameOf(0x82, fill(maxWrite, 1), false)
		for n := len(frame); n > 0; { // until the socket is full
			var err error
			if n, err = wire.TrySend(frame); err != nil {
				t.Fatal(err)
			}
		}
		const short = 100 * time.Millisecond
		limits.Write = short
		begun, sent := make(chan bool), make(chan error, 1)
		go func() {
			begun <- true
			sent <- wire.Send(frame)
		}()
		<-begun
		go io.Copy(io.Discard, client)
		if err := receive(t, sent, "a write that waits"); err != nil {
			t.Skip("this machine is too busy:", err)
		}
		<-time.After(2 * short)
		if err := wire.Send([]byte{0x82, 0}); err != nil {
			t.Errorf("a frame: %v", err)
		}
	})
}

func TestInterruptEndsAWaitAndResumeLetsOneBegin(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		var p [100]byte
		read := func() error { _, err := wire.Read(p[:]); return err }
		for name, wait := range map[string]func() error{"Wait": wire.Wait, "Read": read} {
			errs := make(chan error)
			go func() { errs <- wait() }()
			until(t, "a read waits", func() bool { return wire.WaitingSince() != 0 })
			wire.Interrupt()
			err := receive(t, errs, name)
			if name == "Wait" && !wire.Interrupted(err) || name == "Read" && err != net.ErrClosed {
				t.Errorf("%s was interrupted with %v", name, err)
			}
			if err := wire.Wait(); !wire.Interrupted(err) {
				t.Errorf("another Wait, still interrupted: %v", err)
			}
			wire.Resume()
			go func() { errs <- wait() }()
			until(t, "a read waits", func() bool { return wire.WaitingSince() != 0 })
			mustWrite(t, client, fromClient(0x81, "x"))
			if err := receive(t, errs, name); err != nil {
				t.Errorf("%s after Resume: %v", name, err)
			}
			if name == "Wait" && read() != nil {
				t.Error("nothing is there after Wait")
			}
		}
	})
}

// An Interrupt that comes while a read begins is never lost, nor is a byte with it.
func TestInterruptRacesWithReadsThatBegin(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		message := fromClient(0x81, "x")
		cut := message[:3] // so that armRead has a deadline to set
		begin, errs := make(chan bool), make(chan error)
		go func() {
			var p [100]byte
			for range begin {
				_, err := wire.Read(p[:])
				errs <- err
			}
		}()
		defer close(begin)
		for i := range 300 {
			wait := func() {}
			if i%2 == 0 { // within a message every other time
				wait = mustWrite(t, client, cut)
				if _, err := io.ReadFull(wire, make([]byte, len(cut))); err != nil {
					t.Fatal(err)
				}
			}
			begin <- true
			for range i % 7 * 10 {
				_ = Now()
			}
			wire.Interrupt()
			if err := receive(t, errs, "an interrupted read"); err != net.ErrClosed {
				t.Fatalf("round %d: %v", i, err)
			}
			wire.Resume()
			wait()
			if i%2 == 0 {
				wait = mustWrite(t, client, message[len(cut):])
				if _, err := io.ReadFull(wire, make([]byte, len(message)-len(cut))); err != nil {
					t.Fatalf("round %d: the rest: %v", i, err)
				}
				wait()
			}
		}
	})
}

// What is unread waits, too: the one who interrupts wants the reader for himself.
func TestInterruptHoldsBackWhatIsUnread(t *testing.T) {
	server, _ := pipePair(t)
	wire, _ := newWire(server, fromClient(0x81, "x"), relaxed)
	wire.Interrupt()
	if err := wire.Wait(); !wire.Interrupted(err) {
		t.Errorf("Wait: %v", err)
	}
	wire.Resume()
	if err := wire.Wait(); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	var p [100]byte
	if n, err := wire.Read(p[:]); n != 7 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
}

// A message's deadline doesn't undo an Interrupt that came first.
func TestInterruptComesBeforeTheMessagesDeadline(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, _ := s.make(t)
		wire, _ := newWire(server, fromClient(0x81, "x")[:4], relaxed)
		var p [100]byte
		if _, err := wire.Read(p[:]); err != nil {
			t.Fatal(err)
		}
		wire.Interrupt()
		begin := time.Now()
		if _, err := wire.Read(p[:]); err != net.ErrClosed || time.Since(begin) > patience/2 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
