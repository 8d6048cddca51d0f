package redisbroker

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// Presence implements wsroom.PresenceStore. Create one with NewPresence. All of it is in keys of one hash
// slot that begin with "wsroom:{presence}:", and by Redis' clock. What no node renews any more is gone after
// 24 hours at the latest.
type Presence struct {
	client rueidis.Client
}

// NewPresence returns a store over a client, which it doesn't close.
func NewPresence(client rueidis.Client) *Presence { return &Presence{client: client} }

const (
	keyPrefix = "wsroom:{presence}:"
	roomKey   = keyPrefix + "room:" // a hash: identity → number of nodes
	nodeKey   = keyPrefix + "node:" // a set of pairs of room and identity, and "" if it has renewed
	leasesKey = keyPrefix + "leases"
)

// scriptBase is what all scripts begin with. Sets, not counters alone, make it harmless to do a thing twice.
const scriptBase = `
local leases = KEYS[1]
local keep = 24 * 3600 * 1000
local function room_key(room) return '` + roomKey + `' .. room end
local function node_key(node) return '` + nodeKey + `' .. node end
local function pair(room, identity) return #room .. ':' .. room .. identity end
local function unpair(pair)
	local colon = string.find(pair, ':', 1, true)
	local from = colon + 1 + tonumber(string.sub(pair, 1, colon - 1))
	return string.sub(pair, colon + 1, from - 1), string.sub(pair, from)
end
local function now()
	local time = redis.call('TIME')
	return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function exit(node, room, identity)
	if redis.call('SREM', node_key(node), pair(room, identity)) == 0 then return 0 end
	if redis.call('HINCRBY', room_key(room), identity, -1) > 0 then return 0 end
	redis.call('HDEL', room_key(room), identity)
	return 1
end
local function end_node(node, left)
	for _, p in ipairs(redis.call('SMEMBERS', node_key(node))) do
		if p ~= '' then
			local room, identity = unpair(p)
			if exit(node, room, identity) == 1 then
				left[#left + 1] = room
				left[#left + 1] = identity
			end
		end
	end
	redis.call('DEL', node_key(node))
	redis.call('ZREM', leases, node)
end
`

var (
	enterScript = rueidis.NewLuaScript(scriptBase + `
local room, identity, node = ARGV[1], ARGV[2], ARGV[3]
redis.call('ZADD', leases, 'NX', now() + 60000, node) -- for one that dies before its first Renew
redis.call('PEXPIRE', leases, keep)
if redis.call('SADD', node_key(node), pair(room, identity)) == 0 then return 0 end
if redis.call('PTTL', node_key(node)) < 0 then redis.call('PEXPIRE', node_key(node), keep) end
local nodes = redis.call('HINCRBY', room_key(room), identity, 1)
redis.call('PEXPIRE', room_key(room), keep)
return nodes == 1 and 1 or 0
`)
	exitScript = rueidis.NewLuaScript(scriptBase + `
return exit(ARGV[3], ARGV[1], ARGV[2])
`)
	leaveScript = rueidis.NewLuaScript(scriptBase + `
local left = {}
end_node(ARGV[1], left)
return left
`)
	renewScript = rueidis.NewLuaScript(scriptBase + `
local node, ttl, left = ARGV[1], tonumber(ARGV[2]), {}
for _, other in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now())) do end_node(other, left) end
local new = redis.call('SADD', node_key(node), '')
redis.call('ZADD', leases, now() + ttl, node)
redis.call('PEXPIRE', leases, keep)
if redis.call('PTTL', node_key(node)) < keep / 2 then
	redis.call('PEXPIRE', node_key(node), keep)
	for _, p in ipairs(redis.call('SMEMBERS', node_key(node))) do
		if p ~= '' then redis.call('PEXPIRE', room_key(unpair(p)), keep) end
	end
end
left[#left + 1] = tostring(1 - new)
return left
`)
)

// Enter implements wsroom.PresenceStore.
func (p *Presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	return p.ask(ctx, enterScript, "enter", room, identity, node)
}

// Exit implements wsroom.PresenceStore.
func (p *Presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	return p.ask(ctx, exitScript, "exit", room, identity, node)
}

// Identities implements wsroom.PresenceStore.
func (p *Presence) Identities(ctx context.Context, room string) ([]string, error) {
	identities, err := p.client.Do(ctx, p.client.B().Hkeys().Key(roomKey+room).Build()).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("redisbroker: identities: %w", err)
	}
	return identities, nil
}

// Renew implements wsroom.PresenceStore. A ttl is a few hours at the most.
func (p *Presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	answer, err := p.list(ctx, renewScript, "renew", node, fmt.Sprint(ttl.Milliseconds()))
	if err != nil {
		return false, nil, err
	}
	last := len(answer) - 1
	return answer[last] == "1", byRoom(answer[:last]), nil
}

// Leave implements wsroom.PresenceStore.
func (p *Presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	answer, err := p.list(ctx, leaveScript, "leave", node)
	return byRoom(answer), err
}

func (p *Presence) ask(ctx context.Context, script *rueidis.Lua, what string, args ...string) (bool, error) {
	answer, err := script.Exec(ctx, p.client, []string{leasesKey}, args).AsInt64()
	if err != nil {
		return false, fmt.Errorf("redisbroker: %s: %w", what, err)
	}
	return answer == 1, nil
}

func (p *Presence) list(ctx context.Context, script *rueidis.Lua, what string, args ...string) ([]string, error) {
	answer, err := script.Exec(ctx, p.client, []string{leasesKey}, args).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("redisbroker: %s: %w", what, err)
	}
	return answer, nil
}

// byRoom takes pairs of room and identity.
func byRoom(pairs []string) map[string][]string {
	left := map[string][]string{}
	for i := 0; i < len(pairs); i += 2 {
		left[pairs[i]] = append(left[pairs[i]], pairs[i+1])
	}
	return left
}
