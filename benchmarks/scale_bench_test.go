package main

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

const manyRooms = 100_000

// manyRoomed returns a hub of 1,000 members, each in a hundred rooms besides /bench.
func manyRoomed(b *testing.B) *bench {
	b.Helper()
	h := newBench(b, 1000, false)
	for i := range manyRooms {
		if err := h.conns[i%1000].Join("/many/" + strconv.Itoa(i)); err != nil {
			b.Fatal(err)
		}
	}
	return h
}

// BenchmarkToRooms sends to several rooms of ten members, among many rooms. Naming the target is part of it.
func BenchmarkToRooms(b *testing.B) {
	for _, n := range []int{1, 2, 10, 100} {
		b.Run(fmt.Sprintf("rooms=%d", n), func(b *testing.B) {
			h := newBench(b, 10*n, false)
			var rooms []string
			for i := range 10 * n {
				room := "/rooms/" + strconv.Itoa(i/10)
				if i%10 == 0 {
					rooms = append(rooms, room)
				}
				if err := h.conns[i].Join(room); err != nil {
					b.Fatal(err)
				}
			}
			h.flood(b, 1, func() error { return h.To(rooms...).SendText("hello") })
		})
	}
}

// BenchmarkList lists what a hub with 100,000 rooms has. The longest time that a send to a room took meanwhile is
// reported, too: a list that locked all rooms would show there.
func BenchmarkList(b *testing.B) {
	h := manyRoomed(b)
	for _, test := range []struct {
		name string
		list func() int
	}{
		{"rooms", func() int { return len(h.Rooms()) }},
		{"members", func() int { return len(h.Members("/bench")) }},
		{"conns", func() (n int) {
			for range h.Conns() {
				n++
			}
			return n
		}},
	} {
		b.Run(test.name, func(b *testing.B) {
			stop, took := make(chan struct{}), make(chan []time.Duration)
			go sendMeanwhile(h.Hub, stop, took)
			b.ReportAllocs()
			for b.Loop() {
				if test.list() == 0 {
					b.Fatal("nothing")
				}
			}
			close(stop)
			times := <-took
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds()), "p99-send-ns")
		})
	}
}

// sendMeanwhile sends to one room after the other until it is stopped.
func sendMeanwhile(h *wsroom.Hub, stop <-chan struct{}, took chan<- []time.Duration) {
	var times []time.Duration
	for i := 0; ; i++ {
		room := "/many/" + strconv.Itoa(i%manyRooms)
		begin := time.Now()
		_ = h.SendTextToRoom(room, "hello")
		times = append(times, time.Since(begin))
		select {
		case <-stop:
			took <- times
			return
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// BenchmarkRoomChurn opens 1,000 rooms and closes them, on a hub that has 100,000.
func BenchmarkRoomChurn(b *testing.B) {
	h := manyRoomed(b)
	var rooms []string
	for i := range 1000 {
		rooms = append(rooms, "/churn/"+strconv.Itoa(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, room := range rooms {
			if err := h.conns[i].Join(room); err != nil {
				b.Fatal(err)
			}
		}
		for i, room := range rooms {
			if err := h.conns[i].Leave(room); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/room")
}
