-- Everything of a thread, whatever namespace the caller named.
for _, namespace in ipairs(redis.call('ZRANGE', inside, 0, -1)) do
    local of = T .. '/' .. namespace
    local run = redis.call('HMGET', P .. 'thread:' .. of, 'run', 'graph', 'status')
    if namespace == '' and run[3] == 'running' then redis.call('ZREM', running(run[2]), run[1] .. T) end
    for _, seq in ipairs(redis.call('HKEYS', P .. 'payloads:' .. of)) do redis.call('DEL', records(seq, of)) end
    local waiting = redis.call('HGETALL', P .. 'outbox:' .. of)
    for at = 1, #waiting, 2 do
        local comma = string.find(waiting[at + 1], ',', 1, true)
        local length = tonumber(string.sub(waiting[at + 1], 1, comma - 1))
        redis.call('ZREM', topic(string.sub(waiting[at + 1], comma + 1, comma + length)), waiting[at] .. of)
    end
    for _, kind in ipairs({'thread', 'infos', 'payloads', 'ids', 'branches', 'tags', 'outbox'}) do
        redis.call('DEL', P .. kind .. ':' .. of)
    end
end
redis.call('DEL', inside)
redis.call('ZREM', threads(), string.match(T, '[^/]*$'))
return 'ok'
