package redisbroker

import (
	"crypto/sha1"
	"fmt"

	"github.com/redis/rueidis"
)

// keptBase is the beginning of the scripts for what is kept. A topic has two keys, of which one at most
// exists: a stream with what is kept, and a string with the id of the last message, once that has gone. The
// string says that nothing was kept since. Where neither exists, that isn't known.
//
// Ids follow Redis' clock, but those of a new stream begin a millisecond ahead, with a number that grows 500
// a microsecond. So they come after all that a stream had that was lost a moment ago. Where the clock was set
// back by more than a second, they begin after the id above, which the caller has seen. The first message of
// a stream has the id that the string had: it is the next one after that.
//
// The last argument of each script is for how many ms a stream stays beyond its time, so that a follower
// finds it within that, and keeps the id of its last message.
const keptBase = `
local stream, idle = KEYS[1], KEYS[2]
local hold = tonumber(ARGV[#ARGV])
local function ms(id) return tonumber(string.match(id, '^%d+')) end
local function seq(id) return tonumber(string.match(id, '%d+$')) end
local function less(a, b) return ms(a) < ms(b) or ms(a) == ms(b) and seq(a) < seq(b) end
local function new_id(above, slack)
	local time = redis.call('TIME')
	local number = time[2] % 1000 * 500
	local id = string.format('%.0f-%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + 1, number)
	local function come_after(other)
		if not less(other, id) then id = string.format('%.0f-%.0f', ms(other) + 1, number) end
	end
	come_after(redis.call('GET', idle) or '0-0')
	if ms(above) > ms(id) + slack then come_after(above) end
	return id
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
	// channel, and an id that a new stream must be above. It answers the message's id. The number in an id has
	// 20 bits of a position, so a new millisecond begins before they are used up: that matters only where the
	// clock was set back.
	keepText = keptBase + `
local data, n, age, publish, channel, above = unpack(ARGV)
local id = redis.call('XADD', stream, 'NOMKSTREAM', 'MAXLEN', '~', n, '*', 'd', data)
if not id then
	id = redis.call('XADD', stream, new_id(above, 1000), 'd', data, 'after', redis.call('GET', idle) or '')
	redis.call('DEL', idle)
end
if #id > 20 then
	redis.call('XADD', stream, string.format('%.0f-0', ms(id) + 1), 'mark', '')
end
redis.call('PEXPIRE', stream, age + hold)
redis.call(publish, channel, id .. ' ' .. data)
return id
`
	keepScript = rueidis.NewLuaScript(keepText)
	keepSHA    = fmt.Sprintf("%x", sha1.Sum([]byte(keepText))) // by which Redis knows the script

	// readScript takes the id from which to read, with a '(' to leave that out, or '+' for the end; a command,
	// and the other end of what it reads; how many entries and bytes to read, of which it may exceed the bytes;
	// and an id as keepScript does. It answers
	//
	//   - the replication id, which changes when a server starts or takes over from another: it may lack the last
	//     messages then, and nothing in the stream tells
	//   - 1 if from is the id of a message, or that of the one before the first
	//   - the id from which to read on; ids of later messages are higher
	//   - 1 if there may be more
	//   - the messages, an id and data each, without that of from
	//
	// If nothing is there from that id on, not even the last message's id, a new id is put there, and answered.
	// Where there is a stream, a mark in it has that id, and is no message. Where Redis has no memory left, it
	// isn't put there.
	readScript = rueidis.NewLuaScript(keptBase + `
local from, command, to, most, room, above = unpack(ARGV)
most, room = tonumber(most), tonumber(room)
local answer = {string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '', '0', '', '0'}
local function range(start, count) return redis.call(command, stream, start, to, 'COUNT', count) end
local function mark()
	for _, id in ipairs({new_id(above, -1), '*'}) do
		local marked = redis.pcall('XADD', stream, id, 'mark', '')
		if type(marked) == 'string' then return marked end
	end
	return above
end
local function last_id()
	local known = redis.call('GET', idle)
	if known == from then answer[2] = '1' end
	if from == '+' then
		known = known or new_id(above, 1000)
	elseif not known or less(known, above) then
		known = new_id(above, -1)
	end
	redis.pcall('SET', idle, known, 'PX', 2 * hold)
	return known
end
local function read()
	local start, some, bytes = from, 1, 0
	while most > 0 and bytes < room do
		some = math.min(2 * some, most, 64)
		local got = range(start, some)
		for _, entry in ipairs(got) do
			if entry[2][1] == 'd' and entry[1] ~= from then
				answer[#answer + 1] = entry[1]
				answer[#answer + 1] = entry[2][2]
				bytes = bytes + #entry[2][2]
				most = most - 1
			end
			start = '(' .. entry[1]
			answer[3] = entry[1]
		end
		if #got < some then return end
	end
	answer[4] = '1'
end
if from == '+' then rest() end
local first = range(from, 1)[1]
if first then
	if first[1] == from or first[2][4] == from then answer[2] = '1' end
	read()
elseif string.sub(from, 1, 1) == '(' then
	answer[3] = string.sub(from, 2)
else
	answer[3] = redis.call('EXISTS', stream) == 1 and mark() or last_id()
end
return answer
`)

	// idleScript takes the id of the last message that a follower has heard. It keeps that id for longer where
	// the message itself has gone, or is to go now.
	idleScript = rueidis.NewLuaScript(keptBase + `
if rest() == -2 and redis.call('GET', idle) == ARGV[1] then redis.call('PEXPIRE', idle, 2 * hold) end
return 1
`)
)
