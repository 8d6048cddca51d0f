package outbound

import (
	"testing"

	"github.com/wsroom/wsroom/internal/frame"
)

// nobody is an Owner that is never called.
type nobody struct{ Owner }

// What is pushed before the queue is started isn't part of the snapshot, even where goroutines can't be told apart.
func TestSnapshotBeginsWithTheStart(t *testing.T) {
	var q Queue
	q.Init(&Limits{Messages: 10, Bytes: 1 << 10}, nobody{}, true)
	if q.Attach(new(frame.Conn)) {
		t.Error("it is closed already")
	}

	if p := q.PushSnapshot(frame.NewMessage(frame.Text, "early", false), 0); p.Refused != Taken {
		t.Errorf("refused: %d", p.Refused)
	}
	if n, waiting := q.snapshot.messages.len, q.ready.len; n != 0 || waiting != 1 {
		t.Errorf("%d in the snapshot, %d that wait for Release", n, waiting)
	}
}

// CloseWith and Attach tell the one that comes second that the other was there.
func TestAttachAndCloseMeet(t *testing.T) {
	for _, closedFirst := range []bool{false, true} {
		var q Queue
		q.Init(&Limits{Messages: 10, Bytes: 1 << 10}, nobody{}, false)

		var closed, attached bool
		if closedFirst {
			_, attached = q.CloseWith("", true)
			closed = q.Attach(new(frame.Conn))
		} else {
			closed = q.Attach(new(frame.Conn))
			_, attached = q.CloseWith("", true)
		}
		if closed != closedFirst || attached == closedFirst {
			t.Errorf("closed first %t: closed %t, attached %t", closedFirst, closed, attached)
		}
		if q.IsDone() {
			t.Error("it is done before it is started")
		}
	}
}
