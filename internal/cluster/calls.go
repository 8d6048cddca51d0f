package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

const (
	// unknownProbePause is how often at most a topic is probed of which nothing is known while others fail.
	unknownProbePause = 50 * time.Millisecond
	// publishers is how many topics at most are published to at once. A call holds up no other topic's before
	// there are so many.
	publishers = 4096
	// publishTime bounds one call of Publish, and probeTime one that carries nothing. What is under way adds to
	// both the time that it takes at slowestLine bytes a second.
	publishTime = 2 * time.Second
	probeTime   = time.Second
	slowestLine = 128 << 10
	// probeRate is how many topics that fail are tried again in a second, at most.
	probeRate = 1000
	// resumedAtOnce is how many other topics are tried again at once when one works again.
	resumedAtOnce = 2
	// maxHold bounds how long, after an outage, messages are held back until other nodes, which find out
	// by themselves that the broker is back, have subscribed again.
	maxHold = 2 * time.Second
	// minTries is how often an envelope is offered at least before it is given up.
	minTries = 3
)

// calls are the outbox's calls of the broker. Each topic fails, and is tried again, by itself. The outbox's
// lock guards them.
type calls struct {
	ready    []*topic               // their turn comes
	working  int                    // publishers
	underWay int                    // bytes that are being published
	pausing  map[*topic]*time.Timer // those that fail, until they are tried again
	worked   time.Time              // when a call last worked
	absence  absence                // calls that have failed since one worked on any topic
	probed   time.Time              // when probeUnknown last had a topic tried
	failing  int                    // topics whose last call failed
	since    time.Time              // when the first of them began to fail
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

// schedule has the topic's first envelope published, or a probe.
func (o *outbox) schedule(t *topic) {
	t.phase = queued
	o.ready = append(o.ready, t)
	if o.working < publishers {
		o.working++
		o.node.wg.Go(o.publishReady)
	}
}

// publishReady is a publisher: it publishes until no topic is ready.
func (o *outbox) publishReady() {
	for t, data, limit := o.next(); t != nil; t, data, limit = o.next() {
		ctx, cancel := context.WithTimeout(o.node.ctx, limit)
		err := o.node.cfg.Broker.Publish(ctx, o.node.topicName(t.room), data)
		cancel()
		o.published(t, len(data), err)
	}
}

// next takes the topic whose turn it is, and what to publish on it: its first envelope or, where that
// failed, an empty one as a probe, to see whether the broker is back. It returns nil where no topic is ready.
func (o *outbox) next() (t *topic, data []byte, limit time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 {
		o.working--
		return nil, nil, 0
	}
	t = o.ready[0]
	o.ready[0] = nil
	o.ready = o.ready[1:]

	t.phase, t.begun = publishing, time.Now()
	if t.probe = t.retry > 0 || len(t.envelopes) == 0; t.probe {
		data, limit = appendEnvelope(nil, o.node.id), probeTime
	} else {
		data, limit = t.envelopes[0], publishTime
	}
	if !t.probe && t.tries == 0 {
		t.offered = t.begun
	}

	o.underWay += len(data)
	return t, data, limit + time.Duration(o.underWay)*time.Second/slowestLine
}

// published notes the outcome of a call for what next returned. Each outcome gives the topic its next phase.
func (o *outbox) published(t *topic, size int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return // it has been counted as lost
	}
	o.underWay -= size

	switch {
	case err == nil && t.probe:
		o.probeTaken(t)
	case err == nil:
		o.envelopeTaken(t)
	case isRejected(err):
		o.rejected(t, err)
	default:
		o.failed(t, err)
	}
}

// isRejected reports whether the broker says that it never takes the data.
func isRejected(err error) bool {
	var r rejection
	return errors.As(err, &r) && r.Rejected()
}

// probeTaken goes on with a topic that works again, when other nodes have had time to find that, too.
func (o *outbox) probeTaken(t *topic) {
	away := time.Duration(0)
	if !t.absence.first.IsZero() {
		away = time.Since(t.absence.first)
	}
	o.noteSuccess(t)
	t.retry = 0
	if len(t.envelopes) == 0 {
		t.phase = idle
		return
	}

	t.phase = retrying
	time.AfterFunc(min(away, maxHold), func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.closed {
			o.schedule(t)
		}
	})
}

// envelopeTaken goes on with the topic's next envelope. What this node had got at once has been published now.
func (o *outbox) envelopeTaken(t *topic) {
	o.noteSuccess(t)
	t.local = false
	o.removeFirst(t)
	o.proceed(t)
}

// rejected gives up an envelope that the broker never takes.
func (o *outbox) rejected(t *topic, err error) {
	o.giveUp(t, fmt.Errorf("wsroom: broker: %w", err))
	o.proceed(t)
}

// failed has the topic tried again later. An envelope that isn't taken again and again, although the topic
// works in between, is given up.
func (o *outbox) failed(t *topic, err error) {
	o.noteFailure(t)
	if len(t.envelopes) == 0 { // nothing waits: it was a probe of probeUnknown
		t.phase = idle
		return
	}

	t.phase = retrying
	o.noteFailing(t, err)
	if o.isAway(t) {
		o.deliverLocally(t)
	}
	if !t.probe {
		t.tries++
	}
	if t.tries >= minTries && time.Since(t.offered) > o.node.cfg.Bridge {
		o.giveUp(t, fmt.Errorf("wsroom: broker: a message isn't taken: %w", err))
	}
	if len(t.envelopes) == 0 {
		t.phase, t.retry = idle, 0
		o.recovered(t)
		return
	}

	t.retry = serial.NextRetry(t.retry)
	o.pause(t, max(t.retry, time.Duration(o.failing)*time.Second/probeRate))
}

// proceed goes on with what waits for a topic, if anything does.
func (o *outbox) proceed(t *topic) {
	if len(t.envelopes) == 0 {
		t.phase = idle
		return
	}
	o.schedule(t)
}

// removeFirst takes the topic's first envelope from what waits.
func (o *outbox) removeFirst(t *topic) {
	if len(t.envelopes) == 0 {
		return
	}
	o.count(-len(t.envelopes[0]))
	t.envelopes[0] = nil
	t.envelopes = t.envelopes[1:]
	t.tries, t.notice = 0, false
	o.signalDrained()
}

// giveUp replaces the topic's first envelope by a notice, which tells other nodes that it won't come. A
// notice itself isn't replaced again.
func (o *outbox) giveUp(t *topic, err error) {
	if len(t.envelopes) == 0 { // it was a probe
		return
	}
	notice := t.notice
	lost := t.envelopes[0]
	o.removeFirst(t)
	if notice {
		return
	}

	o.node.cfg.Failed("rejected")
	if s := o.node.subscription(t.room); s != nil {
		s.missed("rejected", err, o.node.id)
	}
	t.notice = true
	e := appendMessage(appendEnvelope(nil, o.node.id), message{sequence: lastSequenceOf(lost), kind: kindLost}, "")
	t.envelopes = slices.Insert(t.envelopes, 0, e)
	o.count(len(e))
}

// noteSuccess notes that the broker takes messages on the topic.
func (o *outbox) noteSuccess(t *topic) {
	o.worked, o.absence = time.Now(), absence{}
	t.works = true
	if !t.absence.first.IsZero() {
		o.recovered(t)
		o.resumeSome()
	}
}

// recovered takes the topic from those that fail.
func (o *outbox) recovered(t *topic) {
	t.absence = absence{}
	if o.failing--; o.failing > 0 {
		return
	}
	away := time.Since(o.since)
	o.node.reports.Add("broker is back", func() {
		o.node.cfg.Log.Info("wsroom: broker takes messages again", "away", away)
	})
}

// noteFailure notes that the topic's last call failed.
func (o *outbox) noteFailure(t *topic) {
	o.node.cfg.Failed("publish")
	t.works = false
	if !t.begun.Before(o.worked) {
		o.absence.note(t.begun)
	}
}

// noteFailing adds the topic, for which something waits, to those that fail.
func (o *outbox) noteFailing(t *topic, err error) {
	if t.absence.first.IsZero() {
		if o.failing++; o.failing == 1 {
			o.since = t.begun
			o.node.reports.Add("broker is away", func() {
				o.node.cfg.Log.Warn("wsroom: broker doesn't take messages", "err", err)
			})
		}
	}
	t.absence.note(t.begun)
}

// probeUnknown has a topic tried of which nothing is known, now and then, so that it isn't refused for others'
// failures for ever.
func (o *outbox) probeUnknown(room string) {
	if t := o.topics[room]; t != nil && t.phase != idle || time.Since(o.probed) < unknownProbePause {
		return
	}
	o.probed = time.Now()
	o.schedule(o.topic(room))
}

// pause has a topic that fails tried again later.
func (o *outbox) pause(t *topic, d time.Duration) {
	if o.pausing == nil {
		o.pausing = map[*topic]*time.Timer{}
	}
	o.pausing[t] = time.AfterFunc(d, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.resume(t)
	})
}

func (o *outbox) resume(t *topic) {
	if timer := o.pausing[t]; timer != nil {
		timer.Stop()
		delete(o.pausing, t)
		o.schedule(t)
	}
}

// resumeSome has some topics that fail tried at once. Each that works resumes further ones.
func (o *outbox) resumeSome() {
	n := 0
	for t := range o.pausing {
		if n++; n > resumedAtOnce {
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
