if gone() then return '' end
-- The server's clock in microseconds, or one more than the last: so no epoch is given twice even if the newest were lost in
-- a crash of the server. The first write is one that a full server refuses.
local now = redis.call('TIME')
local clock = now[1] * 1000000 + now[2]
local epoch = string.format('%.0f', math.max((tonumber(redis.call('GET', P .. 'epoch')) or 0) + 1, clock))
redis.call('SET', P .. 'epoch', epoch)
redis.call('HSET', thread, 'epoch', epoch)
redis.call('ZADD', inside, 0, N)
redis.call('ZADD', threads(), 0, string.match(T, '[^/]*$'))
return epoch
