-- 4 epoch, 5 expected head, 6 parent, 7 id of the new checkpoint if this is a second attempt, 8 to 11 how many records,
-- messages, runs and checkpoints follow, each with its values.
local epoch, expected, parent, mine = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local record_count, message_count = tonumber(ARGV[8]), tonumber(ARGV[9])
local has_run, has_checkpoint = ARGV[10] == '1', ARGV[11] == '1'
local at = 12
local function take() at = at + 1; return ARGV[at - 1] end

local refused = refusal(epoch, expected)
if refused then
    if refused[1] == 'conflict' and mine ~= '' and redis.call('HGET', ids, mine) == refused[2] then
        return {'ok', refused[2]}
    end
    return refused
end
if record_count > 0 and expected == '' then return {'missing', '0'} end
if parent ~= '' and redis.call('HEXISTS', payloads, parent) == 0 then return {'missing', parent} end

-- All is decided: from here on everything is written. A server without memory refuses the first write, and none but that.
local old = redis.call('HMGET', thread, 'run', 'graph', 'status')
local run = old[1] or ''
if has_run then
    local new, graph, status, failed, message = take(), take(), take(), take(), take()
    run = new
    redis.call('HSET', thread, 'run', new, 'graph', graph, 'status', status)
    if failed == '1' then redis.call('HSET', thread, 'error', message) else redis.call('HDEL', thread, 'error') end
    if N == '' then
        if old[3] == 'running' then redis.call('ZREM', running(old[2]), old[1] .. T) end
        if status == 'running' then redis.call('ZADD', running(graph), 0, new .. T) end
    end
end
local head = expected
if has_checkpoint then
    local id, kind, info, payload = take(), take(), take(), take()
    local grows_from = parent ~= '' and parent or expected
    head = string.format('%.0f', redis.call('HINCRBY', thread, 'last', 1))
    redis.call('HSET', thread, 'head', head)
    local names
    names, at = keep_values(at)
    redis.call('HSET', payloads, head, kind .. grows_from .. names .. payload)
    redis.call('ZADD', infos, head, head .. ',' .. grows_from .. ',' .. #run .. ',' .. run .. info)
    redis.call('HSETNX', ids, id, head)
end
for _ = 1, record_count do
    local name, body = take(), take()
    redis.call('HSET', records(expected), name, body)
end
for _ = 1, message_count do
    local id, name, body = take(), take(), take()
    if redis.call('HSETNX', outbox, id, #name .. ',' .. name .. body) == 1 then
        redis.call('ZADD', topic(name), 0, id .. full)
    end
end
return {'ok', head}
