package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

type page struct{ *wsroomtest.Client }

// site returns a dashboard and what opens a page of it.
func site(t *testing.T, opts ...wsroom.Option) (d *dashboard, watch func() page) {
	d, handler := newDashboard(opts...)
	wsroomtest.CheckHub(t, d.hub)
	return d, func() page {
		t.Helper()
		return page{wsroomtest.Dial(t, handler, "/live")}
	}
}

func (p page) next() (some []sample) {
	p.NextJSON(&some)
	return some
}

// However much was recorded, one message tells it.
func TestManyRequestsAreOneMessage(t *testing.T) {
	d, watch := site(t)
	p := watch()
	p.ExpectText("[]")
	for i := range 1000 {
		d.record(time.Duration(i)*time.Millisecond, i%10 != 0)
	}
	now := d.since.Add(2 * time.Second)
	if err := d.push(now); err != nil {
		t.Fatal(err)
	}
	p.ExpectJSON([]sample{{At: now.UnixMilli(), Requests: 500, Median: 500, P95: 950, Failed: 10, Watching: 1}})
	p.ExpectNothing()
	if err := d.push(now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if some := p.next(); some[0].Requests != 0 || some[0].Failed != 0 {
		t.Errorf("got %+v of a quiet second", some)
	}
}

func TestNewcomerGetsTheLastMinute(t *testing.T) {
	d, watch := site(t)
	start := time.Now()
	for i := range 100 {
		if err := d.push(start.Add(time.Duration(i) * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	past := watch().next()
	if first := start.Add(39 * time.Second).UnixMilli(); len(past) != 61 || past[0].At != first {
		t.Errorf("%d samples from %d on, want 61 from %d on", len(past), past[0].At, first)
	}
}

// A page that doesn't read costs the others nothing, and goes on with the latest.
func TestSlowPageGetsTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		d, watch := site(t, wsroom.OnDrop(func(_ *wsroom.Conn, n int) { dropped += n }))
		slow, quick := watch(), watch()
		slow.next()
		quick.next()
		slow.Stall()
		last := time.Now()
		for range 20 {
			last = last.Add(time.Second)
			if err := d.push(last); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if some := quick.next(); len(some) != 1 || some[0].At != last.UnixMilli() { // each of them, at once
				t.Fatalf("got %+v, want the sample of %d", some, last.UnixMilli())
			}
		}
		slow.Resume()
		got := slow.Drain()
		if dropped == 0 || len(got)+dropped != 20 {
			t.Errorf("%d samples came and %d were dropped, of 20", len(got), dropped)
		}
		if latest := got[len(got)-1]; !strings.Contains(latest, fmt.Sprint(last.UnixMilli())) {
			t.Errorf("the latest is %s", latest)
		}
	})
}

func TestPagesMayNotTalk(t *testing.T) {
	_, watch := site(t)
	p := watch()
	p.SendText("{}")
	p.ExpectClose(websocket.StatusUnsupportedData) // the hub is push-only
}
