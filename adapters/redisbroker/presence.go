package redisbroker

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Presence implements [wsroom.PresenceStore]. [NewPresence] makes it. All its keys are in one hash slot,
// begin with "wsroom:{presence}:", and use Redis' clock. What no node renews any more is gone after 24
// hours at the latest.
//
// Redis must not evict these keys: its maxmemory-policy must be noeviction, or one of the volatile policies
// with a memory limit that Redis doesn't reach. If entries are lost nevertheless, a hub enters them again
// within about a minute.
type Presence struct {
	client rueidis.Client

	mu       sync.Mutex        // guards what follows
	answered map[string]string // by node: its last Renew whose answer has arrived
}

// NewPresence returns a store over a client, which it doesn't close.
func NewPresence(client rueidis.Client) *Presence {
	return &Presence{client: client, answered: map[string]string{}}
}

// tellTime is how long Leave may continue after its context has ended, to say that its answer has arrived.
const tellTime = time.Second

// scriptEntries is how many entries one script takes. Redis does nothing else meanwhile, for 2 or 3 ms.
const scriptEntries = 500

// infoEntries is the same for entries with infos.
const infoEntries = 250

// Enter implements [wsroom.PresenceStore].
func (p *Presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	return p.one(p.change(ctx, enterScript, "enter", [][2]string{{room, identity}}, node))
}

// Exit implements [wsroom.PresenceStore].
func (p *Presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	return p.one(p.change(ctx, exitScript, "exit", [][2]string{{room, identity}}, node))
}

// EnterAll does what [Presence.Enter] does, for each entry of a room and an identity.
func (p *Presence) EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error) {
	return p.change(ctx, enterScript, "enter", entries, node)
}

// ExitAll does what [Presence.Exit] does, for each entry of a room and an identity.
func (p *Presence) ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error) {
	return p.change(ctx, exitScript, "exit", entries, node)
}

// EnterInfo does what [Presence.EnterAll] does, and has each identity show the info that is its entry's third
// part.
func (p *Presence) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	for some := range slices.Chunk(entries, infoEntries) {
		args := make([]string, 0, 1+3*len(some))
		args = append(args, node)
		for _, e := range some {
			args = append(args, e[:]...)
		}
		answer, err := infoScript.Exec(ctx, p.client, []string{leasesKey}, args).AsIntSlice()
		if err != nil {
			return nil, nil, fmt.Errorf("redisbroker: enter: %w", err)
		}
		for _, n := range answer {
			first, changed = append(first, n == 1), append(changed, n == 2)
		}
	}
	return first, changed, nil
}

// Infos returns who is in the room, as [Presence.Identities] does, and what each shows.
func (p *Presence) Infos(ctx context.Context, room string) (map[string]string, error) {
	answer, err := p.list(ctx, infosScript, "infos", room)
	infos := make(map[string]string, len(answer)/2)
	for i := 0; i+1 < len(answer); i += 2 {
		infos[answer[i]] = answer[i+1]
	}
	return infos, err
}

func (p *Presence) one(changed []bool, err error) (bool, error) {
	return err == nil && changed[0], err
}

func (p *Presence) change(ctx context.Context, script *rueidis.Lua, what string, entries [][2]string, node string) ([]bool, error) {
	changed := make([]bool, 0, len(entries))
	for some := range slices.Chunk(entries, scriptEntries) {
		args := make([]string, 0, 1+2*len(some))
		args = append(args, node)
		for _, e := range some {
			args = append(args, e[0], e[1])
		}
		answer, err := script.Exec(ctx, p.client, []string{leasesKey}, args).AsIntSlice()
		if err != nil {
			return nil, fmt.Errorf("redisbroker: %s: %w", what, err)
		}
		for _, n := range answer {
			changed = append(changed, n == 1)
		}
	}
	return changed, nil
}

// Identities implements [wsroom.PresenceStore].
func (p *Presence) Identities(ctx context.Context, room string) ([]string, error) {
	return p.list(ctx, identitiesScript, "identities", room)
}

// Entries returns, by room, the identities that are there through node.
func (p *Presence) Entries(ctx context.Context, node string) (map[string][]string, error) {
	answer, err := p.list(ctx, entriesScript, "entries", node)
	return byRoom(answer), err
}

// Renew implements [wsroom.PresenceStore]. A ttl is a few hours at most.
func (p *Presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	call := rand.Text()
	answer, err := p.list(ctx, renewScript, "renew", node, fmt.Sprint(ttl.Milliseconds()), call, p.lastAnswered(node))
	if err != nil {
		return false, nil, err
	}
	left = byRoom(answer[1:])
	p.setAnswered(node, call)
	p.told(ctx, node, call, left)
	return answer[0] == "1", left, nil
}

// Leave implements [wsroom.PresenceStore]. It may return up to a second after its context has ended.
func (p *Presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	call := rand.Text()
	answer, err := p.list(ctx, leaveScript, "leave", node, call, p.lastAnswered(node))
	if err != nil {
		return nil, err
	}
	left = byRoom(answer)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime) // no later call says so
	defer cancel()
	p.told(ctx, node, call, left)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answered, node)
	return left, nil
}

// told says that the answer of a call has arrived, so that Redis need not keep the identities that it
// returned. If told fails, the next Renew says so.
func (p *Presence) told(ctx context.Context, node, call string, left map[string][]string) {
	if len(left) > 0 {
		_ = toldScript.Exec(ctx, p.client, []string{leasesKey}, []string{node, call}).Error()
	}
}

func (p *Presence) lastAnswered(node string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered[node]
}

func (p *Presence) setAnswered(node, call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered[node] = call
}

func (p *Presence) list(ctx context.Context, script *rueidis.Lua, what string, args ...string) ([]string, error) {
	answer, err := script.Exec(ctx, p.client, []string{leasesKey}, args).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("redisbroker: %s: %w", what, err)
	}
	return answer, nil
}

// byRoom reads pairs of room and identity.
func byRoom(pairs []string) map[string][]string {
	left := map[string][]string{}
	for i := 0; i < len(pairs); i += 2 {
		left[pairs[i]] = append(left[pairs[i]], pairs[i+1])
	}
	return left
}
