-- 4 the version of the layout that this release writes. Gives the one that is there. What an older release wrote is read as
-- it is; from now on that release is refused.
local found = redis.call('GET', P .. 'version')
if found and tonumber(found) >= tonumber(ARGV[4]) then return found end
redis.call('SET', P .. 'version', ARGV[4])
return ARGV[4]
