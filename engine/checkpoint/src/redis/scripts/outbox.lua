-- Of no thread: 4 topic, 5 how many at most, 6 how many are passed over at most. Gives the member (id and thread) and the body
-- of each. Those of threads that are being deleted are passed over.
local wanted, passes = tonumber(ARGV[5]), tonumber(ARGV[6])
local found, at = {}, 0
while #found < 2 * wanted and passes > 0 do
    local members = redis.call('ZRANGE', topic(ARGV[4]), at, at + wanted - 1)
    if #members == 0 then break end
    at = at + #members
    for _, member in ipairs(members) do
        local full = string.sub(member, 17)
        if redis.call('ZSCORE', graves, string.match(full, '^[^/]*/[^/]*')) then
            passes = passes - 1
        elseif #found < 2 * wanted then
            local stored = redis.call('HGET', P .. 'outbox:' .. full, string.sub(member, 1, 16))
            local comma = string.find(stored, ',', 1, true)
            local length = tonumber(string.sub(stored, 1, comma - 1))
            found[#found + 1] = member
            found[#found + 1] = string.sub(stored, comma + length + 1)
        end
    end
end
return found
