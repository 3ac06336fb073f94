if gone() then return {} end
local now = redis.call('HMGET', thread, 'head', 'branch')
if not now[1] then return {} end
local all = redis.call('HGETALL', branches)
all[#all + 1] = now[2] or 'main'
all[#all + 1] = now[1]
return all
