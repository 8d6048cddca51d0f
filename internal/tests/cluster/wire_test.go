package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// recovery is how long a hub takes after an outage, to try again and to let others come back.
const recovery = 4 * time.Second

// slow is a broker that takes its time: to publish, and to subscribe to a room named /late.
type slow struct {
	*kit.Wire
	asked atomic.Int64 // to subscribe
}

func (s *slow) Publish(ctx context.Context, topic string, data []byte) error {
	own := bytes.Clone(data)
	time.Sleep(10 * time.Millisecond)
	return s.Wire.Publish(ctx, topic, own)
}

func (s *slow) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	s.asked.Add(1)
	if strings.HasSuffix(topic, "/late") {
		time.Sleep(4 * time.Second)
	}
	return s.Wire.Subscribe(context.WithoutCancel(ctx), topic, deliver, lost)
}

type hanging struct{ *kit.Wire }

func (h hanging) Publish(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

// limited is a broker that takes no more than 1000 bytes.
type limited struct{ *kit.Wire }

func (l limited) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > 1000 {
		return fmt.Errorf("too large: %w", rejected{kit.ErrDown})
	}
	return l.Wire.Publish(ctx, topic, data)
}

type rejected struct{ error }
