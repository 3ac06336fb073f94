-- 4 the tag's name, 5 the number of its checkpoint or nothing.
if ARGV[5] == '' then
    redis.call('HDEL', tags, ARGV[4])
    return {'ok', ''}
end
if gone() or redis.call('HEXISTS', payloads, ARGV[5]) == 0 then return {'missing', ARGV[5]} end
redis.call('HSET', tags, ARGV[4], ARGV[5])
return {'ok', ARGV[5]}
