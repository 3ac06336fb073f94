if gone() then return {} end
return redis.call('HGETALL', tags)
