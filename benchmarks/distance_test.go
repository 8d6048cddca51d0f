package main

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// A delay delays what goes either way, and takes as much at a time as comes.
func TestDelay(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		conn, err := echo.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	const oneWay, size = 50 * time.Millisecond, 8 << 20
	d, err := newDelay(echo.Addr().String(), oneWay)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	conn, err := net.Dial("tcp", d.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	go func() { _, _ = conn.Write(make([]byte, size)) }()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*oneWay {
		t.Errorf("there and back takes %v, want %v at least", took, 2*oneWay)
	}
	if _, err := io.ReadFull(conn, make([]byte, size-1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second { // 256 KiB a trip would take more than 3 s, one packet minutes
		t.Errorf("8 MiB take %v", took)
	}
}

// The scenarios with a broker far away deliver every message, and show the distance.
func TestFarAway(t *testing.T) {
	for _, lib := range server.Distant {
		t.Run(lib.Name, func(t *testing.T) {
			t.Parallel()
			sc := far(true)[1]
			sc.warm, sc.measure, sc.plan.Rooms = 50*time.Millisecond, 200*time.Millisecond, 20
			f := runOnce(t.Context(), sc, lib, "")
			if strings.HasSuffix(f.note, server.NotInstalled) && os.Getenv("WSROOM_INTEROP") != "all" {
				t.Skip(f.note)
			}
			if f.note != "" || f.rate == 0 || f.lost+f.doubled+f.reordered+f.ended > 0 || f.p50 < sc.trip.Seconds() {
				t.Error(f.summary())
			}

			storm, err := runStorm(t.Context(), lib, sc.trip, 50)
			if err != nil || storm.cpu == 0 || storm.broker == 0 || storm.p50 < sc.trip || storm.all < storm.p50 {
				t.Errorf("%+v: %v", storm, err)
			}
		})
	}
}
