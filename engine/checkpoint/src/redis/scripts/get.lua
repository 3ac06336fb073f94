-- 4 is head, seq or id, 5 its value. Gives the info, the run, the parts from the newest back to the snapshot, the records, the
-- large values that the parts name.
local how, seq = ARGV[4], ARGV[5]
if gone() then return {'none'} end
if how == 'head' then seq = redis.call('HGET', thread, 'head') end
if how == 'id' then seq = redis.call('HGET', ids, ARGV[5]) end
if not seq then return {'none'} end
local info = redis.call('ZRANGEBYSCORE', infos, seq, seq)[1]
if not info then return {'none'} end
-- Each part is a pair: whether it is a stub, and its bytes. Large values come in pairs too, each name once.
local parts, next = {}, seq
local shelf, known = {}, {}
while true do
    local stored = redis.call('HGET', payloads, next)
    if not stored then return {'corrupt', next} end
    local kind, parent, count, from = parsed(stored)
    local is_stub = count and '1' or '0'
    for _, name in ipairs(named(stored)) do
        if not known[name] then
            known[name] = true
            shelf[#shelf + 1] = name
            shelf[#shelf + 1] = redis.call('HGET', values, name) or ''
        end
    end
    if kind == 'W' then
        local list = string.find(stored, '\n', from, true)
        local to = #stored
        local lengths = {}
        for length in string.gmatch(string.sub(stored, from, list - 1), '%d+') do
            lengths[#lengths + 1] = tonumber(length)
        end
        for at = #lengths, 1, -1 do
            parts[#parts + 1] = is_stub
            parts[#parts + 1] = string.sub(stored, to - lengths[at] + 1, to)
            to = to - lengths[at]
        end
        break
    end
    parts[#parts + 1] = is_stub
    parts[#parts + 1] = string.sub(stored, from)
    next = parent
    if kind == 'S' or next == '' then break end
end
local run = redis.call('HMGET', thread, 'run', 'graph', 'status', 'error')
return {'found', info, run[1] or '', run[2] or '', run[3] or '', run[4] and '1' or '0', run[4] or '', parts,
    redis.call('HGETALL', records(seq)), shelf}
