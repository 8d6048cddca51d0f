package server

import (
	"context"
	"net/http"
	"strconv"
	"sync"

	"github.com/centrifugal/centrifuge"
)

// newCentrifuge is the chat of centrifuge's tutorial: everyone may subscribe to and publish into
// any channel. Write buffers come from its pool. With deflate it uses its cache of prepared
// messages, experimental, which compresses a publication once and not for each subscriber.
func newCentrifuge(o Options) http.Handler {
	return newCentrifugeWith(o, centrifuge.SubscribeOptions{}, centrifuge.PublishOptions{})
}

// newCentrifugeKept keeps what is published, for clients that recover.
func newCentrifugeKept(o Options) http.Handler {
	return newCentrifugeWith(o, centrifuge.SubscribeOptions{EnableRecovery: true},
		centrifuge.PublishOptions{HistorySize: 256, HistoryTTL: keptFor})
}

func newCentrifugeWith(o Options, subscribe centrifuge.SubscribeOptions, publish centrifuge.PublishOptions) http.Handler {
	node, err := centrifuge.New(centrifuge.Config{ClientChannelLimit: 1 << 20})
	if err != nil {
		panic(err)
	}
	if o.Broker != "" {
		if err := useRedis(node, o.Broker); err != nil {
			panic(err)
		}
	}
	s := &centrifugeServer{}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{},
			MaxMessagesInFrame: -1, // as many as wait; its default is 16
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		s.remember(client)
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{Options: subscribe}, nil)
		})
		client.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
			reply(centrifuge.PublishReply{Options: publish}, nil)
		})
	})
	if err := node.Run(); err != nil {
		panic(err)
	}
	config := centrifuge.WebsocketConfig{UseWriteBufferPool: true, MessageSizeLimit: maxMessage, Compression: o.Deflate}
	if o.Deflate {
		config.CompressionPreparedMessageCacheSize = 16 << 20
		config.CompressionLevel = 1
	}
	s.Handler = centrifuge.NewWebsocketHandler(node, config)
	return s
}

type centrifugeServer struct {
	http.Handler
	mu    sync.Mutex
	first *centrifuge.Client
}

func (s *centrifugeServer) remember(client *centrifuge.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.first = client
	}
}

// joins subscribes the first client from the server's side.
func (s *centrifugeServer) joins(rooms, times int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rooms {
		if err := s.first.Subscribe("more" + strconv.Itoa(i)); err != nil {
			return err
		}
	}
	for range times {
		if err := s.first.Subscribe("another"); err != nil {
			return err
		}
		s.first.Unsubscribe("another")
	}
	return nil
}
