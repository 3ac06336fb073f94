-- Of no thread: 4 topic, 5 how many at most. Gives the member (id and thread) and the body of each.
local found = {}
for _, member in ipairs(redis.call('ZRANGE', topic(ARGV[4]), 0, ARGV[5] - 1)) do
    local stored = redis.call('HGET', P .. 'outbox:' .. string.sub(member, 17), string.sub(member, 1, 16))
    local comma = string.find(stored, ',', 1, true)
    local length = tonumber(string.sub(stored, 1, comma - 1))
    found[#found + 1] = member
    found[#found + 1] = string.sub(stored, comma + length + 1)
end
return found
