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
//
// The connection may have failed or hang, and other connections may not. So once a command has no answer, the
// sender takes nothing until Redis answers there again. With RESP2 rueidis has another connection for commands than
// for the subscriptions: if only that one fails, the sender takes nothing any more.
type sender struct {
	conn rueidis.DedicatedClient

	mu     sync.Mutex // guards what follows
	onWay  int        // commands that Redis hasn't answered, as far as is known
	left   int        // those of them whose caller waits no more
	silent bool       // a command has no answer, and the next one, by probe, hasn't, either
}

// try has send use the connection. It returns false if nothing was sent, or if Redis' answer is that it doesn't
// take the message from this connection.
func (s *sender) try(ctx context.Context, send func(over rueidis.CommandClient) error) (done bool, err error) {
	if !s.begin() {
		return false, nil
	}
	err = send(s.conn)
	_, refused := rueidis.IsRedisErr(err)
	s.end(err == nil || refused, ctx.Err() != nil)
	if refused || errors.Is(err, rueidis.ErrDedicatedClientRecycled) {
		return false, nil
	}
	return true, err
}

// begin returns false where too many commands are on their way, or one has no answer.
func (s *sender) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent || s.onWay == ahead {
		return false
	}
	s.onWay++
	return true
}

// end notes that a command was answered, that its caller waits no more, or that the connection has failed.
func (s *sender) end(answered, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left && !answered {
		s.left++
	} else {
		s.onWay--
	}
	if !answered && !s.silent {
		s.silent = true
		go s.probe() // ends with the connection at the latest
	}
}

// probe waits for the answer to a command. By then Redis has answered all earlier ones.
func (s *sender) probe() {
	err := s.conn.Do(context.Background(), s.conn.B().Ping().Build()).NonRedisError()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.onWay -= s.left
		s.left, s.silent = 0, false
	}
}

// ofMaster returns s, or nil if the server is a replica, as a master is after a failover. A replica has all that is
// published to its master. But what is published to a replica stays there.
func (s *sender) ofMaster() *sender {
	hello, err := s.conn.Do(context.Background(), s.conn.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return s
	}
	role := hello["role"]
	if name, _ := role.ToString(); name == "replica" || name == "slave" {
		return nil
	}
	return s
}
