-- Deletes a thread, whatever namespace the caller named, in calls of bounded work: 4 whether a thread that is there is to be
-- buried, or only one that is buried taken away, 5 how many things at most this call takes out, 6 where the last left off
-- among the messages. The first call hides the whole thread at once; the last takes out what says so. Says whether all is done.
if not gone() then
    if ARGV[4] == 'clear' or redis.call('EXISTS', inside) == 0 then return {'done', '0'} end
    -- First what a server without memory does not refuse; once something is written it refuses nothing.
    redis.call('RENAME', inside, buried)
    redis.call('ZADD', graves, 0, T)
    redis.call('ZREM', threads(), string.match(T, '[^/]*$'))
    local run = redis.call('HMGET', P .. 'thread:' .. T .. '/', 'run', 'graph', 'status')
    if run[3] == 'running' then redis.call('ZREM', running(run[2]), run[1] .. T) end
end

-- Large keys are unlinked, which takes no longer for more of them: the server frees them beside its work.
local room, cursor = tonumber(ARGV[5]), ARGV[6]
while room > 0 do
    local namespace = redis.call('ZRANGE', buried, 0, 0)[1]
    if not namespace then
        redis.call('ZREM', graves, T)
        return {'done', '0'}
    end
    local of = T .. '/' .. namespace
    local members = redis.call('ZRANGE', P .. 'infos:' .. of, 0, room - 1)
    for _, member in ipairs(members) do redis.call('UNLINK', records(string.match(member, '^%d+'), of)) end
    if #members > 0 then redis.call('ZREMRANGEBYRANK', P .. 'infos:' .. of, 0, #members - 1) end
    room = room - #members
    if room > 0 then
        local found = redis.call('HSCAN', P .. 'outbox:' .. of, cursor, 'COUNT', math.min(room, 50))
        cursor = found[1]
        for at = 1, #found[2], 2 do
            local id, stored = found[2][at], found[2][at + 1]
            local comma = string.find(stored, ',', 1, true)
            local length = tonumber(string.sub(stored, 1, comma - 1))
            redis.call('ZREM', topic(string.sub(stored, comma + 1, comma + length)), id .. of)
            redis.call('HDEL', P .. 'outbox:' .. of, id)
        end
        room = room - math.max(#found[2] / 2, 1)
        -- A call that was made again may have begun with the cursor of another namespace: what counts is that none is left.
        if cursor == '0' and redis.call('HLEN', P .. 'outbox:' .. of) == 0 then
            for _, kind in ipairs({'thread', 'infos', 'payloads', 'values', 'uses', 'ids', 'branches', 'tags', 'outbox'}) do
                redis.call('UNLINK', P .. kind .. ':' .. of)
            end
            redis.call('ZREM', buried, namespace)
        end
    end
end
return {'more', cursor}
