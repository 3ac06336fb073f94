-- 4 the number before which, 5 how many at most. Gives the infos, newest first.
if gone() then return {} end
return redis.call('ZREVRANGEBYSCORE', infos, ARGV[4], '-inf', 'LIMIT', 0, ARGV[5])
