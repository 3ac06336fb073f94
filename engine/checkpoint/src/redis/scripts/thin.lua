-- Takes checkpoints out, in calls of bounded work: 4 whether this one takes them out (`take`) or only looks, 5 how many
-- checkpoints it looks through at most, 6 how far the last has looked or nothing, 7 how many checkpoints go, then their numbers;
-- for each that is rebased its number, its payload and its large values, which are wanted only of a call that takes out.
if gone() then return {'ok', ''} end
local page, count = tonumber(ARGV[5]), tonumber(ARGV[7])
local goes, rebased, oldest = {}, {}, nil
for at = 8, 7 + count do
    goes[ARGV[at]] = true
    if not oldest or tonumber(ARGV[at]) < oldest then oldest = tonumber(ARGV[at]) end
end
local at = 8 + count
while at <= #ARGV do
    rebased[ARGV[at]] = at + 1
    at = at + 3 + (tonumber(ARGV[at + 2]) or 0) * 2
end

-- The branch that the thread is on may stand among the others too, where it was left once.
local now = redis.call('HMGET', thread, 'head', 'branch', 'epoch')
if now[1] and goes[now[1]] then return {'used', now[1]} end
for _, kind in ipairs({branches, tags}) do
    local named = redis.call('HGETALL', kind)
    for at = 1, #named, 2 do
        local current = kind == branches and named[at] == (now[2] or 'main')
        if goes[named[at + 1]] and not current then return {'used', named[at + 1]} end
    end
end
-- A child is younger than its parent, and what is new is younger than all that was looked through. That no longer holds for a
-- thread that was deleted and made anew meanwhile: its epoch is another.
local epoch, seen = string.match(ARGV[6], '^(%d+),(%d+)$')
if oldest then
    if epoch ~= now[3] then seen = string.format('%.0f', oldest) end
    local members = redis.call('ZRANGEBYSCORE', infos, '(' .. seen, '+inf', 'LIMIT', 0, page)
    for _, member in ipairs(members) do
        local seq, parent = string.match(member, '^(%d+),(%d*),')
        if goes[parent] and not goes[seq] and not rebased[seq] then return {'used', parent} end
        seen = seq
    end
    local cursor = (now[3] or '0') .. ',' .. seen
    if #members == page then return {'more', cursor} end
    if ARGV[4] ~= 'take' then return {'looked', cursor} end
end

-- All is decided. What needs room is written first: a server without memory refuses that, and nothing is gone then.
for seq, place in pairs(rebased) do
    local member = redis.call('ZRANGEBYSCORE', infos, seq, seq)[1]
    if member and not goes[seq] then
        local before = redis.call('HGET', payloads, seq)
        redis.call('HSET', payloads, seq, 'W' .. keep_values(place + 1) .. ARGV[place])
        let_go(before)
        redis.call('ZREM', infos, member)
        redis.call('ZADD', infos, seq, (string.gsub(member, '^(%d+),%d*,', '%1,,', 1)))
    end
end
for seq in pairs(goes) do
    local member = redis.call('ZRANGEBYSCORE', infos, seq, seq)[1]
    if member then
        local length, from = string.match(member, '^%d+,%d*,(%d+),()')
        -- The server's own reader of MessagePack knows no bytes: the word `id`, and 16 of them.
        local _, before = string.find(member, '\162id\196\16', from + length, true)
        local id = before and string.sub(member, before + 1, before + 16)
        if id and redis.call('HGET', ids, id) == seq then redis.call('HDEL', ids, id) end
        redis.call('ZREM', infos, member)
    end
    let_go(redis.call('HGET', payloads, seq))
    redis.call('HDEL', payloads, seq)
    redis.call('DEL', records(seq))
end
return {'ok', ''}
