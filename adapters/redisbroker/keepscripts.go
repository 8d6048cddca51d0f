package redisbroker

import "github.com/redis/rueidis"

// keptBase is the beginning of the scripts for what is kept. A topic has two keys, of which one at most
// exists: a stream with what is kept, and a string with the id of the last message, once that has gone. The
// string says that nothing was kept since. Where neither exists, that isn't known.
//
// Ids follow Redis' clock. Those of a new stream begin a millisecond ahead and at a random number, so that
// they come after all that a lost stream had in this millisecond. Where the clock was set back by more than a
// second, they begin after the id above, which the caller has seen.
//
// The last argument of each script is for how many ms a stream stays beyond its time, so that a follower
// finds it within that, and keeps the id of its last message.
const keptBase = `
local stream, idle = KEYS[1], KEYS[2]
local hold = tonumber(ARGV[#ARGV])
local function ms(id) return tonumber(string.match(id or '0', '^%d+')) end -- also of none
local function seq(id) return tonumber(string.match(id, '%d+$')) end
local function less(a, b) return ms(a) < ms(b) or ms(a) == ms(b) and seq(a) < seq(b) end
local function new_id(above, random)
	local time = redis.call('TIME')
	local least = math.max(time[1] * 1000 + math.floor(time[2] / 1000), ms(redis.call('GET', idle)))
	if ms(above) > least + 1000 then least = ms(above) end
	return string.format('%.0f-%s', least + 1, random)
end
-- rest has the id of the last message take the place of a stream whose time is over.
local function rest()
	local left = redis.call('PTTL', stream)
	if left == -2 or left >= hold then return left end
	local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
	redis.call('DEL', stream)
	if last then redis.pcall('SET', idle, last[1], 'PX', 2 * hold) end -- fails where there is no memory left
end
`

var (
	// keepScript takes a message, how many to keep and for how many ms, the command that publishes, the
	// channel, an id that a new stream must be above, and a random number for its first id. It answers the
	// message's id. The number in an id has 20 bits of a position, so a new millisecond begins before that
	// is too few: that matters only where the clock was set back.
	keepScript = rueidis.NewLuaScript(keptBase + `
local data, n, age, publish, channel, above, random = unpack(ARGV)
local id = redis.call('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', n, '*', 'd', data)
if not id then
	id = redis.call('XADD', stream, new_id(above, random), 'd', data)
	redis.call('DEL', idle)
end
if #id > 20 then
	redis.call('XADD', stream, string.format('%.0f-0', ms(id) + 1), 'mark', '')
end
redis.call('PEXPIRE', stream, age + hold)
redis.call(publish, channel, id .. ' ' .. data)
return id
`)

	// readScript takes the id from which to read, with a '(' to leave that out, or '+' for the end; a command, and the other end of what
	// it reads; how many entries and bytes to read, of which it may exceed the bytes; and an id and a random
	// number as keepScript does. It answers
	//
	//   - the server's process, of which a new one may lack what an old one had
	//   - 1 if from is the id of an entry or, where there are none from there on, of the last message
	//   - the id from which to read on; ids of later messages are higher
	//   - 1 if there may be more
	//   - the messages, an id and data each, without that of from
	//
	// If nothing is there, not even the last message's id, the id that it answers is put there. Where there
	// is a stream, a mark in it is that id, and is no message.
	readScript = rueidis.NewLuaScript(keptBase + `
local from, command, to, most, room, above, random = unpack(ARGV)
most, room = tonumber(most), tonumber(room)
local answer = {string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), '0', '', '0'}
local function range(start, count) return redis.call(command, stream, start, to, 'COUNT', count) end
if from == '+' then rest() end
local first = range(from, 1)[1]
if not first and string.sub(from, 1, 1) == '(' then
	answer[3] = string.sub(from, 2)
	return answer
elseif not first then
	local known = redis.call('GET', idle)
	if redis.call('EXISTS', stream) == 1 then
		known = redis.pcall('XADD', stream, above, 'mark', '')
		if type(known) == 'table' then known = redis.pcall('XADD', stream, '*', 'mark', '') end
		if type(known) == 'table' then known = above end -- there is no memory left
	else
		if known == from then answer[2] = '1' end
		if from == '+' then
			known = known or new_id(above, random)
		elseif not known or less(known, above) then
			known = above
		end
		redis.pcall('SET', idle, known, 'PX', 2 * hold)
	end
	answer[3] = known
	return answer
end
if first[1] == from then answer[2] = '1' end
local start, some, bytes = from, 1, 0
while most > 0 do
	some = math.min(some, most)
	local got = range(start, some)
	for _, entry in ipairs(got) do
		if entry[2][1] == 'd' and entry[1] ~= from then
			answer[#answer + 1] = entry[1]
			answer[#answer + 1] = entry[2][2]
			bytes = bytes + #entry[2][2]
			most = most - 1
		end
		answer[3] = entry[1]
		start = '(' .. entry[1]
	end
	if #got < some then return answer end
	if bytes >= room then break end
	some = math.min(2 * some, 64)
end
answer[4] = '1'
return answer
`)

	// idleScript takes the id of the last message that a follower has heard. It keeps that id for longer where
	// the message itself has gone, or is to go now.
	idleScript = rueidis.NewLuaScript(keptBase + `
if rest() == -2 and redis.call('GET', idle) == ARGV[1] then redis.call('PEXPIRE', idle, 2 * hold) end
return 1
`)
)
