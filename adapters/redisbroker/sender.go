package redisbroker

import (
	"context"
	"errors"
	"sync"

	"github.com/redis/rueidis"
)

// ahead is how many commands a sender has on their way, at most. It is half of what rueidis queues for a
// connection by default (ClientOption.RingScaleEachConn): rueidis waits for room in that queue whatever a
// context says.
const ahead = 512

// sender sends messages over the connection of a line's subscriptions. So Redis' answer and the message itself
// come back together, and a node wakes once for both. rueidis writes what is sent at the same time together.
type sender struct {
	conn rueidis.DedicatedClient

	mu      sync.Mutex // guards what follows
	begun   uint64     // number of the last command
	onWay   int        // commands that Redis hasn't answered, as far as is known
	left    int        // those of them whose caller waits no more
	lastOne uint64     // the last of those
	probing bool       // a command tells whether Redis has answered them meanwhile
}

// try has send use the connection. It returns false if nothing was sent, or if Redis' answer is that it doesn't
// take the message from this connection.
func (s *sender) try(ctx context.Context, send func(over rueidis.CommandClient) error) (done bool, err error) {
	number, ok := s.begin()
	if !ok {
		return false, nil
	}
	err = send(s.conn)
	s.end(number, err != nil && ctx.Err() != nil)
	if _, answered := rueidis.IsRedisErr(err); answered || errors.Is(err, rueidis.ErrDedicatedClientRecycled) {
		return false, nil
	}
	return true, err
}

// begin returns false where too many commands are on their way.
func (s *sender) begin() (number uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.onWay < ahead:
	case s.left > 0 && !s.probing && s.onWay < ahead+ahead/2:
		s.probing = true
	default:
		return 0, false
	}
	s.begun++
	s.onWay++
	return s.begun, true
}

// end notes that a command was answered, and with it all earlier ones, or that its caller waits no more.
func (s *sender) end(number uint64, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probing = false
	if left {
		s.left++
		s.lastOne = max(s.lastOne, number)
		return
	}
	s.onWay--
	if number > s.lastOne {
		s.onWay -= s.left
		s.left = 0
	}
}
