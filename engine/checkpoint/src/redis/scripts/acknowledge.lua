-- 4 the message's id.
local stored = redis.call('HGET', outbox, ARGV[4])
if not stored then return 'ok' end
local comma = string.find(stored, ',', 1, true)
local length = tonumber(string.sub(stored, 1, comma - 1))
redis.call('ZREM', topic(string.sub(stored, comma + 1, comma + length)), ARGV[4] .. full)
redis.call('HDEL', outbox, ARGV[4])
return 'ok'
