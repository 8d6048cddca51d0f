package frame

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/coder/websocket"
)

func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{128, 1 << 10, 64 << 10} {
		payload := compressible(n)
		for _, deflate := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dB/deflate=%v", n, deflate), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(n))
				for b.Loop() {
					NewMessage(Text, payload, deflate)
				}
			})
		}
	}
}

// endless is a socket whose peer sends the same bytes for ever.
type endless struct {
	nowhere
	stream []byte
	at     int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.stream[e.at:])
	e.at = (e.at + n) % len(e.stream)
	return n, nil
}

// BenchmarkRead reads messages through coder/websocket, as the hub does.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{128, 16 << 10} {
		for _, deflate := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dB/deflate=%v", n, deflate), func(b *testing.B) {
				sent := fromClient(0x81, fill(n, 1))
				if deflate {
					f := parse(b, NewMessage(Text, compressible(n), true).Bytes(true))[0]
					sent = fromClient(f.first, f.payload)
				}
				wire, _ := newWire(&endless{stream: bytes.Repeat(sent, 32)}, nil, relaxed)
				benchmarkRead(b, wire, accept(b, wire, deflate), n)
			})
		}
	}
}

func benchmarkRead(b *testing.B, wire *Conn, ws *websocket.Conn, n int) {
	ws.SetReadLimit(-1)
	ctx, p := context.Background(), make([]byte, 2*n)
	b.ReportAllocs()
	b.SetBytes(int64(n))
	for b.Loop() {
		if err := wire.Wait(); err != nil {
			b.Fatal(err)
		}
		_, r, err := ws.Reader(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.Read(p)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}

// BenchmarkSend sends batches of frames, as one write each, over loopback TCP.
func BenchmarkSend(b *testing.B) {
	for _, frames := range []int{1, 32} {
		b.Run(fmt.Sprintf("%dx128B", frames), func(b *testing.B) {
			server, client := tcpPair(b)
			go io.Copy(io.Discard, client)
			wire, _ := newWire(server, nil, relaxed)
			batch := bytes.Repeat(NewMessage(Text, fill(128, 1), false).Bytes(false), frames)
			b.ReportAllocs()
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				wire.Lock()
				err := wire.Send(batch)
				wire.Unlock()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
