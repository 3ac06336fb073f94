-- 4 epoch, 5 where the branch begins, 6 its name.
local epoch, from, name = ARGV[4], ARGV[5], ARGV[6]
local refused = refusal(epoch)
if refused then return refused end
if redis.call('HEXISTS', payloads, from) == 0 then return {'missing', from} end
local left = redis.call('HMGET', thread, 'branch', 'head')
redis.call('HSET', branches, left[1] or 'main', left[2])
redis.call('HDEL', branches, name)
redis.call('HSET', thread, 'branch', name, 'head', from)
return {'ok', from}
