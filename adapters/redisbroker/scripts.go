package redisbroker

import "github.com/redis/rueidis"

const (
	keyPrefix = "wsroom:{presence}:"
	leasesKey = keyPrefix + "nodes"  // a sorted set: node by the end of its lease, in ms of Redis' clock
	inKey     = keyPrefix + "in:"    // a set for each node and room: identities; all else follows from these and the leases
	roomsKey  = keyPrefix + "rooms:" // a set for each node: its rooms, and "" once it has renewed
	infoKey   = keyPrefix + "info:"  // a hash for each room: what identities show, until they are there by no node any more
	leftKey   = keyPrefix + "left:"  // a hash for each node: identities to report as gone, by the call that returned them
)

// scriptBase is the beginning of all scripts. Nothing is counted, so doing a thing twice is harmless, and
// entering again repairs what is lost of a key.
const scriptBase = `
local leases = KEYS[1]
local keep = 24 * 3600 * 1000
local function in_key(node, room) return '` + inKey + `' .. #node .. ':' .. node .. room end
local function rooms_key(node) return '` + roomsKey + `' .. node end
local function info_key(room) return '` + infoKey + `' .. room end
local function left_key(node) return '` + leftKey + `' .. node end
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
local function keep_for(key, ms) redis.call('PEXPIRE', key, ms) end
local function there_by_others(nodes, node, room, identity)
	for _, other in ipairs(nodes) do
		if other ~= node and redis.call('SISMEMBER', in_key(other, room), identity) == 1 then return true end
	end
	return false
end
local function all_nodes() return redis.call('ZRANGE', leases, 0, -1) end
-- begin gives a node that dies before its first Renew a lease, too.
local function begin(node)
	redis.call('ZADD', leases, 'NX', now() + 60000, node)
	keep_for(leases, keep)
end
local function enter(nodes, node, room, identity)
	local new = redis.call('SADD', in_key(node, room), identity)
	redis.call('SADD', rooms_key(node), room)
	keep_for(in_key(node, room), keep)
	if redis.call('PTTL', rooms_key(node)) < 0 then keep_for(rooms_key(node), keep) end -- by which Renew goes
	return new == 1 and not there_by_others(nodes, node, room, identity)
end
local function exit(nodes, node, room, identity)
	if redis.call('SREM', in_key(node, room), identity) == 0 then return false end
	if redis.call('SCARD', in_key(node, room)) == 0 then redis.call('SREM', rooms_key(node), room) end
	if there_by_others(nodes, node, room, identity) then return false end
	redis.call('HDEL', info_key(room), identity)
	return true
end
-- end_node ends a node's entries and its lease, and hands to another one, or itself, whom that is to tell of.
local function end_node(nodes, node, teller, call)
	for _, room in ipairs(redis.call('SMEMBERS', rooms_key(node))) do
		local gone = room ~= '' and redis.call('SMEMBERS', in_key(node, room)) or {}
		redis.call('DEL', in_key(node, room))
		for _, identity in ipairs(gone) do
			if not there_by_others(nodes, node, room, identity) then
				redis.call('HSET', left_key(teller), pair(room, identity), call)
				redis.call('HDEL', info_key(room), identity)
			end
		end
	end
	redis.call('DEL', rooms_key(node))
	redis.call('ZREM', leases, node)
	if node ~= teller then
		for _, p in ipairs(redis.call('HKEYS', left_key(node))) do redis.call('HSET', left_key(teller), p, call) end
		redis.call('DEL', left_key(node))
	end
end
-- told forgets whom a call has returned whose answer has arrived.
local function told(node, call)
	local left = redis.call('HGETALL', left_key(node))
	for i = 1, #left, 2 do
		if left[i + 1] == call then redis.call('HDEL', left_key(node), left[i]) end
	end
end
-- to_tell adds whom the node is to tell of: not those that are back, of whom nobody was told that they left.
local function to_tell(answer, node, call)
	local nodes = all_nodes()
	for _, p in ipairs(redis.call('HKEYS', left_key(node))) do
		local room, identity = unpair(p)
		if there_by_others(nodes, '', room, identity) then
			redis.call('HDEL', left_key(node), p)
		else
			redis.call('HSET', left_key(node), p, call)
			answer[#answer + 1] = room
			answer[#answer + 1] = identity
		end
	end
	keep_for(left_key(node), keep)
end
-- live_nodes are those whose lease has not lapsed.
local function live_nodes() return redis.call('ZRANGEBYSCORE', leases, '(' .. now(), '+inf') end
`

var (
	// enterScript takes a node, rooms and identities. It answers 1 for each entry that is the first.
	enterScript = rueidis.NewLuaScript(scriptBase + `
local node, answer = ARGV[1], {}
begin(node)
local nodes = all_nodes()
for i = 2, #ARGV, 2 do answer[#answer + 1] = enter(nodes, node, ARGV[i], ARGV[i + 1]) and 1 or 0 end
return answer
`)
	// infoScript takes a node, rooms, identities and infos. It answers for each entry 1 if it is the first, 2
	// if it shows something else than before, and 0 otherwise.
	infoScript = rueidis.NewLuaScript(scriptBase + `
local node, answer = ARGV[1], {}
begin(node)
local nodes = all_nodes()
for i = 2, #ARGV, 3 do
	local room, identity, info = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local first = enter(nodes, node, room, identity)
	if first and info == '' then redis.call('HDEL', info_key(room), identity) end -- of an entry that Redis has lost
	local changed = info ~= '' and redis.call('HGET', info_key(room), identity) ~= info
	if changed then
		redis.call('HSET', info_key(room), identity, info)
		keep_for(info_key(room), keep)
	end
	answer[#answer + 1] = first and 1 or changed and 2 or 0
end
return answer
`)
	exitScript = rueidis.NewLuaScript(scriptBase + `
local node, answer, nodes = ARGV[1], {}, all_nodes()
for i = 2, #ARGV, 2 do answer[#answer + 1] = exit(nodes, node, ARGV[i], ARGV[i + 1]) and 1 or 0 end
return answer
`)
	identitiesScript = rueidis.NewLuaScript(scriptBase + `
local keys = {}
for _, node in ipairs(live_nodes()) do keys[#keys + 1] = in_key(node, ARGV[1]) end
if #keys == 0 then return {} end
if #keys <= 1000 then return redis.call('SUNION', unpack(keys)) end
local answer, seen = {}, {}
for _, key in ipairs(keys) do
	for _, identity in ipairs(redis.call('SMEMBERS', key)) do
		if not seen[identity] then
			seen[identity] = true
			answer[#answer + 1] = identity
		end
	end
end
return answer
`)
	// infosScript answers an identity, and what it shows, for each that is in the room.
	infosScript = rueidis.NewLuaScript(scriptBase + `
local room, answer, seen, infos = ARGV[1], {}, {}, {}
local pairs_of = redis.call('HGETALL', info_key(room))
for i = 1, #pairs_of, 2 do infos[pairs_of[i]] = pairs_of[i + 1] end
for _, node in ipairs(live_nodes()) do
	for _, identity in ipairs(redis.call('SMEMBERS', in_key(node, room))) do
		if not seen[identity] then
			seen[identity] = true
			answer[#answer + 1] = identity
			answer[#answer + 1] = infos[identity] or ''
		end
	end
end
return answer
`)
	entriesScript = rueidis.NewLuaScript(scriptBase + `
local answer = {}
for _, room in ipairs(redis.call('SMEMBERS', rooms_key(ARGV[1]))) do
	if room ~= '' then
		for _, identity in ipairs(redis.call('SMEMBERS', in_key(ARGV[1], room))) do
			answer[#answer + 1] = room
			answer[#answer + 1] = identity
		end
	end
end
return answer
`)
	// renewScript takes a node, its lease in ms, this call, and the last call whose answer has arrived. It
	// answers 1 if the lease was held, and who has left.
	renewScript = rueidis.NewLuaScript(scriptBase + `
local node, ttl, call, answered = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
told(node, answered)
local nodes = all_nodes()
for _, other in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now())) do end_node(nodes, other, node, call) end
local leased = redis.call('ZADD', leases, now() + ttl, node) == 0
local renewed = redis.call('SADD', rooms_key(node), '') == 0
keep_for(leases, keep)
if redis.call('PTTL', rooms_key(node)) < keep / 2 then
	keep_for(rooms_key(node), keep)
	for _, room in ipairs(redis.call('SMEMBERS', rooms_key(node))) do
		keep_for(in_key(node, room), keep)
		keep_for(info_key(room), keep)
	end
end
local answer = {leased and renewed and '1' or '0'}
to_tell(answer, node, call)
return answer
`)
	// leaveScript takes a node, this call, and the last call whose answer has arrived. It answers who has
	// left.
	leaveScript = rueidis.NewLuaScript(scriptBase + `
local node, call, answered = ARGV[1], ARGV[2], ARGV[3]
told(node, answered)
end_node(all_nodes(), node, node, call)
local answer = {}
to_tell(answer, node, call)
if #answer > 0 then redis.call('ZADD', leases, 0, node) end -- so that others find them, if this answer is lost
return answer
`)
	// toldScript takes a node and a call whose answer has arrived.
	toldScript = rueidis.NewLuaScript(scriptBase + `
local node = ARGV[1]
told(node, ARGV[2])
if redis.call('ZSCORE', leases, node) == '0' and redis.call('HLEN', left_key(node)) == 0 then
	redis.call('ZREM', leases, node)
end
return 1
`)
)
