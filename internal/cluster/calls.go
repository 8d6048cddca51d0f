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
	// unknownProbePause is the shortest time between probes of topics of which nothing is known while
	// others fail.
	unknownProbePause = 50 * time.Millisecond
	// publishers is how many topics at most are published to at once. Up to that number no topic's call
	// delays another's.
	publishers = 4096
	// publishTime bounds one call of Publish, and probeTime a call that carries no messages. The bytes
	// being published add to both the time that they take at slowestLine bytes a second.
	publishTime = 2 * time.Second
	probeTime   = time.Second
	slowestLine = 128 << 10
	// probeRate is how many failing topics are tried again in a second, at most.
	probeRate = 1000
	// resumedAtOnce is how many other topics are tried again at once when one works again.
	resumedAtOnce = 2
	// maxHold bounds how long messages are held back after an outage, until other nodes, which notice by
	// themselves that the broker is back, have subscribed again.
	maxHold = 2 * time.Second
	// minTries is the least number of times that an envelope is published before it is given up.
	minTries = 3
)

// calls are the outbox's calls of the broker. Each topic fails, and is tried again, independently of
// others. The outbox's lock guards them.
type calls struct {
	ready    []*topic               // topics that are published to next
	working  int                    // publishers
	underWay int                    // bytes that are being published
	pausing  map[*topic]*time.Timer // failing topics, until they are tried again
	worked   time.Time              // when a call last worked
	absence  absence                // calls that have failed since a call last worked on any topic
	probed   time.Time              // when probeUnknown last had a topic tried
	failing  int                    // number of topics whose last call failed
	since    time.Time              // when the first of them began to fail
}

// absence is how long calls are known not to have worked: from the start of the first failed call to the
// start of the last. The pause after that doesn't count, because the broker may be back.
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

// schedule queues the topic, to publish its first envelope or a probe.
func (o *outbox) schedule(t *topic) {
	t.phase = queued
	o.ready = append(o.ready, t)
	if o.working < publishers {
		o.working++
		o.node.wg.Go(o.publishReady)
	}
}

// publishReady publishes until no topic is ready. Each publisher runs it.
func (o *outbox) publishReady() {
	for t, data, limit := o.next(); t != nil; t, data, limit = o.next() {
		ctx, cancel := context.WithTimeout(o.node.ctx, limit)
		err := o.node.publish(ctx, t.room, data)
		cancel()
		o.published(t, len(data), err)
	}
}

// next takes the next topic, and what to publish on it: its first envelope or, if that failed, an empty one
// as a probe of whether the broker is back. It returns nil if no topic is ready.
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
	switch {
	case !t.probe && t.tries == 0:
		t.offered = t.begun
	case !t.probe && o.node.keeps(t.room):
		data[0] |= published
	}

	o.underWay += len(data)
	return t, data, limit + time.Duration(o.underWay)*time.Second/slowestLine
}

// published handles the outcome of a call that next returned. Each outcome gives the topic its next phase.
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

// isRejected reports whether the broker says that it will never take the data.
func isRejected(err error) bool {
	var r rejection
	return errors.As(err, &r) && r.Rejected()
}

// probeTaken continues with a topic that works again, after other nodes have had time to notice that too.
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

// envelopeTaken continues with the topic's next envelope. What was delivered locally has now been
// published.
func (o *outbox) envelopeTaken(t *topic) {
	o.noteSuccess(t)
	t.local = false
	o.removeFirst(t)
	o.proceed(t)
}

// rejected gives up an envelope that the broker will never take.
func (o *outbox) rejected(t *topic, err error) {
	o.giveUp(t, fmt.Errorf("wsroom: broker: %w", err))
	o.proceed(t)
}

// failed schedules another try. An envelope that fails again and again although the topic works in between
// is given up.
func (o *outbox) failed(t *topic, err error) {
	o.noteFailure(t)
	if len(t.envelopes) == 0 { // nothing waits: it was a probe by probeUnknown
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

// proceed continues with what waits for a topic, if anything does.
func (o *outbox) proceed(t *topic) {
	if len(t.envelopes) == 0 {
		t.phase = idle
		return
	}
	o.schedule(t)
}

// removeFirst removes the topic's first envelope.
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

// giveUp replaces the topic's first envelope by a notice, which tells other nodes that the envelope won't
// come. A notice isn't replaced by another one.
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
		s.rejected(err)
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

// recovered removes the topic from those that fail.
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

// probeUnknown now and then has a topic tried of which nothing is known. Otherwise that topic would be
// refused for ever because others fail.
func (o *outbox) probeUnknown(room string) {
	if t := o.topics[room]; t != nil && t.phase != idle || time.Since(o.probed) < unknownProbePause {
		return
	}
	o.probed = time.Now()
	o.schedule(o.topic(room))
}

// pause schedules a failing topic for another try.
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

// resumeSome has some failing topics tried at once. Each topic that works resumes more of them.
func (o *outbox) resumeSome() {
	n := 0
	for t := range o.pausing {
		if n++; n > resumedAtOnce {
			return
		}
		o.resume(t)
	}
}

// endCalls stops all further tries.
func (o *outbox) endCalls() {
	for _, timer := range o.pausing {
		timer.Stop()
	}
	o.ready, o.pausing = nil, nil
}
