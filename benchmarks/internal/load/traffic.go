package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Flood sends as fast as messages are taken until ctx is done: in each room at most window
// messages are on their way to the slowest member that reads. The rooms are shared out among the
// senders; a sender goes round its rooms.
func (f *Fleet) Flood(ctx context.Context, window, senders int) error {
	senders = min(senders, len(f.rooms))
	var sending sync.WaitGroup
	errs := make([]error, senders)
	for s := range senders {
		sending.Go(func() { errs[s] = f.floodRooms(ctx, uint64(window), s, senders) })
	}
	sending.Wait()
	return errors.Join(errs...)
}

func (f *Fleet) floodRooms(ctx context.Context, window uint64, first, step int) error {
	p := newPatience()
	defer p.tick.Stop()
	for {
		for i := first; i < len(f.rooms); i += step {
			r := f.rooms[i]
			if ctx.Err() != nil {
				return nil
			}
			if r.seq >= window {
				if err := r.await(ctx, r.seq+1-window, p); err != nil {
					return unlessDone(ctx, err)
				}
			}
			if err := r.send(); err != nil {
				return unlessDone(ctx, err)
			}
		}
	}
}

// Pace sends one message every interval, to the rooms in turn, until ctx is done.
func (f *Fleet) Pace(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.rooms[i%len(f.rooms)].send(); err != nil {
			return unlessDone(ctx, err)
		}
	}
}

// Drain waits until all members that read have all that was sent, or get no more of it.
func (f *Fleet) Drain(ctx context.Context) error {
	p := newPatience()
	defer p.tick.Stop()
	for _, r := range f.rooms {
		if err := r.await(ctx, r.seq, p); err != nil {
			return err
		}
	}
	return nil
}

// Churn opens connections to the first room and closes them again, as fast as the server lets
// workers of them, until ctx is done.
func (f *Fleet) Churn(ctx context.Context, workers int) error {
	var churning sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		churning.Go(func() {
			buf := make([]byte, 32<<10)
			for ctx.Err() == nil && errs[w] == nil {
				errs[w] = unlessDone(ctx, f.cycle(ctx, buf))
				f.cycles.Add(1)
			}
		})
	}
	churning.Wait()
	return errors.Join(errs...)
}

// cycle is one short visit: handshake, the dialect's greeting, close handshake.
func (f *Fleet) cycle(ctx context.Context, buf []byte) error {
	conn, err := dial(ctx, f.addrs[0], false)
	if err != nil {
		return err
	}
	defer conn.Close()
	room := f.rooms[0].name
	rest, err := handshake(conn, f.dialect.Path(room), f.dialect.Subprotocol, false, buf)
	if err != nil {
		return err
	}
	if _, err := f.greet(conn, room, rest, buf); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(appendFrame(nil, opClose, clientMask, []byte{0x03, 0xe8})); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("load: after the close frame: %w", err)
	}
	return nil
}

// unlessDone hides errors that the end of the run caused.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
