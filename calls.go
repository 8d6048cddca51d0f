package wsroom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

const (
	// lookTime is how often at most a topic is tried of which nothing is known while others fail.
	lookTime = 50 * time.Millisecond
	// publishers is how many topics at most are published to at once. A call holds up no other topic's before
	// there are so many.
	publishers = 4096
	// publishTime bounds one call of Publish, and probeTime one that carries nothing. What is under way adds to
	// both the time that it takes at slowestLine bytes a second.
	publishTime = 2 * time.Second
	probeTime   = time.Second
	slowestLine = 128 << 10
	// probeRate is how many topics that fail are tried again in a second, at the most.
	probeRate = 1000
	// hastened is how many other topics are tried again at once when one works again.
	hastened = 2
	// maxHold bounds how long, after an outage, messages are held back until other nodes, which find out
	// by themselves that the broker is back, have subscribed again.
	maxHold = 2 * time.Second
	// minTries is how often an envelope is offered at the least before it is given up.
	minTries = 3
)

// calls are the outbox's calls of the broker. Each topic fails, and is tried again, by itself. The outbox's lock
// guards them.
type calls struct {
	ready    []*outTopic
	working  int                       // publishers
	underWay int                       // bytes that are being published
	pausing  map[*outTopic]*time.Timer // those that fail, until they are tried again
	worked   time.Time                 // when a call last worked
	absence  absence                   // calls that have failed since one worked on any topic
	looked   time.Time                 // when look last had a topic tried
	failing  int                       // topics whose last call failed
	since    time.Time                 // when the first of them began to fail
}

// absence is for how long calls are known not to have worked: from the beginning of the first one that failed
// to the beginning of the last. Pauses after that don't count, for the broker may be back.
type absence struct{ first, last time.Time }

func (a *absence) note(began time.Time) {
	if a.first.IsZero() {
		a.first, a.last = began, began
	}
	if began.After(a.last) {
		a.last = began
	}
}

func (a absence) length() time.Duration { return a.last.Sub(a.first) }

// enlist has the topic's first envelope published.
func (o *outbox) enlist(t *outTopic) {
	o.ready = append(o.ready, t)
	if o.working < publishers {
		o.working++
		o.cluster.wg.Go(o.work)
	}
}

// work is a publisher.
func (o *outbox) work() {
	for t, data, most := o.next(); t != nil; t, data, most = o.next() {
		ctx, cancel := context.WithTimeout(o.cluster.ctx, most)
		err := o.cluster.broker.Publish(ctx, o.cluster.topic(t.room), data)
		cancel()
		o.published(t, len(data), err)
	}
}

// next takes the topic whose turn it is, and what to publish on it: its first envelope or, where that
// failed, an empty one, to see whether the broker is back.
func (o *outbox) next() (t *outTopic, data []byte, most time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 {
		o.working--
		return nil, nil, 0
	}
	t = o.ready[0]
	o.ready[0] = nil
	o.ready = o.ready[1:]

	t.begun = time.Now()
	if t.probe = t.retry > 0 || len(t.envelopes) == 0; t.probe {
		data, most = appendEnvelope(nil, o.cluster.node), probeTime
	} else {
		data, most = t.envelopes[0], publishTime
	}
	if !t.probe && t.tries == 0 {
		t.offered = t.begun
	}
	o.underWay += len(data)
	return t, data, most + time.Duration(o.underWay)*time.Second/slowestLine
}

// published notes what became of what next returned.
func (o *outbox) published(t *outTopic, size int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return // it has been counted as lost
	}
	o.underWay -= size
	began := t.begun
	t.begun = time.Time{}

	switch {
	case err == nil && t.probe:
		o.hold(t)
		return
	case err == nil:
		o.works(t)
		t.local = false
	case isRejected(err):
		o.lose(t, fmt.Errorf("wsroom: broker: %w", err))
		o.proceed(t)
		return
	default:
		o.failed(t, began, err)
		return
	}
	o.pop(t)
	o.proceed(t)
}

// isRejected reports whether the broker says that it never takes the data.
func isRejected(err error) bool {
	var rejected interface{ Rejected() bool }
	return errors.As(err, &rejected) && rejected.Rejected()
}

// hold goes on with a topic that works again, when other nodes have had time to find that, too.
func (o *outbox) hold(t *outTopic) {
	away := time.Duration(0)
	if !t.absence.first.IsZero() {
		away = time.Since(t.absence.first)
	}
	o.works(t)
	t.retry = 0
	if len(t.envelopes) == 0 {
		t.busy = false
		return
	}
	time.AfterFunc(min(away, maxHold), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.closed {
			o.enlist(t)
		}
	})
}

// pop takes the topic's first envelope from what waits.
func (o *outbox) pop(t *outTopic) {
	if len(t.envelopes) == 0 {
		return
	}
	o.count(-len(t.envelopes[0]))
	t.envelopes[0] = nil
	t.envelopes = t.envelopes[1:]
	t.tries, t.notice = 0, false
	o.tellDrained()
}

// proceed goes on with what waits for a topic, if anything does.
func (o *outbox) proceed(t *outTopic) {
	if t.busy = len(t.envelopes) > 0; t.busy {
		o.enlist(t)
	}
}

// lose gives the topic's first envelope up. A notice takes its place, which tells other nodes. That isn't
// replaced again.
func (o *outbox) lose(t *outTopic, err error) {
	if len(t.envelopes) == 0 { // it was a probe
		return
	}
	notice := t.notice
	lost := t.envelopes[0]
	o.pop(t)
	if notice {
		return
	}
	o.cluster.hub.observer.Add(MetricBrokerErrors, "", "rejected", 1)
	if s := o.cluster.subscription(t.room); s != nil {
		s.missed("rejected", err, o.cluster.node)
	}
	t.notice = true
	e := appendLetter(appendEnvelope(nil, o.cluster.node), letter{sequence: lastSequence(lost), kind: kindLost}, "")
	t.envelopes = slices.Insert(t.envelopes, 0, e)
	o.count(len(e))
}

// works notes that the broker takes messages on the topic.
func (o *outbox) works(t *outTopic) {
	o.worked, o.absence = time.Now(), absence{}
	t.works = true
	if !t.absence.first.IsZero() {
		o.recovered(t)
		o.hasten()
	}
}

// recovered takes the topic from those that fail.
func (o *outbox) recovered(t *outTopic) {
	t.absence = absence{}
	if o.failing--; o.failing > 0 {
		return
	}
	away := time.Since(o.since)
	o.cluster.reports.Add("broker is back", func() {
		o.cluster.hub.cfg.logger.Info("wsroom: broker takes messages again", "away", away)
	})
}

// failed has the topic tried again later. An envelope that isn't taken again and again, although the topic works
// in between, is given up.
func (o *outbox) failed(t *outTopic, began time.Time, err error) {
	o.cluster.hub.observer.Add(MetricBrokerErrors, "", "publish", 1)
	t.works = false
	if !began.Before(o.worked) {
		o.absence.note(began)
	}
	if len(t.envelopes) == 0 { // nothing waits: look wanted to know
		t.busy = false
		return
	}
	o.fails(t, began, err)
	if o.late(t) {
		o.deliverLocally(t)
	}
	if !t.probe {
		t.tries++
	}
	if t.tries >= minTries && time.Since(t.offered) > o.cluster.hub.cfg.outageTime {
		o.lose(t, fmt.Errorf("wsroom: broker: a message isn't taken: %w", err))
	}
	if len(t.envelopes) == 0 {
		t.busy, t.retry = false, 0
		o.recovered(t)
		return
	}
	t.retry = serial.NextRetry(t.retry)
	o.pause(t, max(t.retry, time.Duration(o.failing)*time.Second/probeRate))
}

// fails adds the topic to those that fail.
func (o *outbox) fails(t *outTopic, began time.Time, err error) {
	if t.absence.first.IsZero() {
		if o.failing++; o.failing == 1 {
			o.since = began
			o.cluster.reports.Add("broker is away", func() {
				o.cluster.hub.cfg.logger.Warn("wsroom: broker doesn't take messages", "err", err)
			})
		}
	}
	t.absence.note(began)
}

// look has a topic tried of which nothing is known, now and then, so that it isn't refused for others' failures
// for ever.
func (o *outbox) look(room string) {
	if t := o.topics[room]; t != nil && t.busy || time.Since(o.looked) < lookTime {
		return
	}
	o.looked = time.Now()
	t := o.topic(room)
	t.busy = true
	o.enlist(t)
}

// pause has a topic that fails tried again later.
func (o *outbox) pause(t *outTopic, d time.Duration) {
	if o.pausing == nil {
		o.pausing = map[*outTopic]*time.Timer{}
	}
	o.pausing[t] = time.AfterFunc(d, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.resume(t)
	})
}

func (o *outbox) resume(t *outTopic) {
	if timer := o.pausing[t]; timer != nil {
		timer.Stop()
		delete(o.pausing, t)
		o.enlist(t)
	}
}

// hasten has some topics that fail tried at once. Each that works hastens further ones.
func (o *outbox) hasten() {
	n := 0
	for t := range o.pausing {
		if n++; n > hastened {
			return
		}
		o.resume(t)
	}
}

// endCalls has nothing tried any more.
func (o *outbox) endCalls() {
	for _, timer := range o.pausing {
		timer.Stop()
	}
	o.ready, o.pausing = nil, nil
}
