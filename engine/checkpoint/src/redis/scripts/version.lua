-- 4 the version of the layout that this release writes. Gives the one that is there.
local found = redis.call('GET', P .. 'version')
if found then return found end
redis.call('SET', P .. 'version', ARGV[4])
return ARGV[4]
