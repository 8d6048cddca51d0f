package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	nodes   = 3
	restart = 5 * time.Second // after which a node that has ended is started again
)

// runAll starts the nodes, each a process of its own, and balances the load until ctx is done.
func runAll(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if *redisAddr == "" && *natsURL == "" {
		end, err := startNATS()
		if err != nil {
			return err
		}
		defer end()
	}
	var addrs []string
	var all sync.WaitGroup
	defer func() { stop(); all.Wait() }() // before the broker ends
	for i := range nodes {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		addrs = append(addrs, addr)
		all.Go(func() { keepRunning(ctx, fmt.Sprint("node ", i+1), addr) })
	}
	srv := &http.Server{
		Addr: flag.Lookup("addr").Value.String(), Handler: balance(addrs),
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
	}
	context.AfterFunc(ctx, func() { srv.Close() })
	log.Printf("listening at http://%s", srv.Addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startNATS starts a NATS server within this process.
func startNATS() (end func(), err error) {
	dir, err := os.MkdirTemp("", "cluster")
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("NATS doesn't start")
	}
	*natsURL = s.ClientURL()
	return func() {
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}, nil
}

// keepRunning runs a node, again and again.
func keepRunning(ctx context.Context, name, addr string) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, os.Args[0], "-node", name, "-addr", addr, "-nats", *natsURL, "-redis", *redisAddr)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 15 * time.Second
		log.Printf("%s ended: %v", name, cmd.Run())
		select {
		case <-time.After(restart):
		case <-ctx.Done():
		}
	}
}

// balance is a load balancer: each connection goes to the next node that takes it.
func balance(addrs []string) http.Handler {
	var turn atomic.Uint32
	dial := func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		first := int(turn.Add(1))
		for i := range addrs {
			if conn, err = new(net.Dialer).DialContext(ctx, network, addrs[(first+i)%len(addrs)]); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "nodes"})
			r.Out.Host = r.In.Host // the origin of the page must stay that of the request
		},
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "no node is there", http.StatusBadGateway)
		},
	}
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
