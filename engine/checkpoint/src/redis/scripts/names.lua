-- Stands before every script: what the keys of a thread are called. A tenant's and a thread's name hold no slash, and the
-- namespace comes last, so that no two threads have one key.
local P, T, N = ARGV[1], ARGV[2], ARGV[3]
local full = T .. '/' .. N
local thread = P .. 'thread:' .. full       -- hash: epoch, last, head, branch, run, graph, status, error
local infos = P .. 'infos:' .. full         -- sorted set by number: seq,parent,length of run,run and info
local payloads = P .. 'payloads:' .. full   -- hash by number: S or D, parent, line feed, bytes; or W, line feed, and for each
                                            -- part from the oldest its length and a comma, then a line feed and all of them;
                                            -- where these are stubs a comma and how many large values they name stand before
                                            -- the first line feed, and the names behind it
local values = P .. 'values:' .. full       -- hash by name: a large value
local uses = P .. 'uses:' .. full           -- hash by name: how many checkpoints name it
local ids = P .. 'ids:' .. full             -- hash by id: number
local branches = P .. 'branches:' .. full   -- hash by name: number
local tags = P .. 'tags:' .. full           -- hash by name: number
local outbox = P .. 'outbox:' .. full       -- hash by id: length of topic, comma, topic and body
local function records(seq, of) return P .. 'records:' .. seq .. ':' .. (of or full) end -- hash by kind, length of task, task and key
local inside = P .. 'inside:' .. T          -- sorted set: the thread's namespaces
local buried = P .. 'buried:' .. T          -- the same of a thread that is being deleted
local graves = P .. 'graves'                -- sorted set: threads that are being deleted
local function threads() return P .. 'threads:' .. string.match(T, '^[^/]*') end -- sorted set: a tenant's threads
local function running(graph) return P .. 'running:' .. graph end -- sorted set: run and thread
local function topic(name) return P .. 'topic:' .. name end       -- sorted set: id and thread

-- Whether the thread is being deleted: then it is as if nothing of it were there.
local function gone() return redis.call('ZSCORE', graves, T) end

-- Why a writer may not write, or nothing.
local function refusal(epoch, expected)
    if gone() then return {'fenced'} end
    local found = redis.call('HMGET', thread, 'epoch', 'head')
    if found[1] ~= epoch then return {'fenced'} end
    if expected and (found[2] or '') ~= expected then return {'conflict', found[2] or ''} end
end

local NAME_BYTES = 32

-- Of a payload: its kind, its parent, how many large values it names, or nothing where it has no stubs, and where its bytes begin.
local function parsed(stored)
    local line = string.find(stored, '\n', 1, true)
    local parent, comma, count = string.match(string.sub(stored, 2, line - 1), '^(%d*)(,?)(%d*)$')
    if comma == '' then return string.sub(stored, 1, 1), parent, nil, line + 1 end
    count = tonumber(count)
    return string.sub(stored, 1, 1), parent, count, line + 1 + count * NAME_BYTES
end

-- The names of the large values in a payload.
local function named(stored)
    local _, _, count, from = parsed(stored)
    local names = {}
    for at = count or 0, 1, -1 do names[#names + 1] = string.sub(stored, from - at * NAME_BYTES, from - (at - 1) * NAME_BYTES - 1) end
    return names
end

-- Keeps the large values that a payload is about to name: their count stands at `at`, each with its name behind it. Gives what
-- goes behind the payload's first two parts, and where the next value stands.
local function keep_values(at)
    local count, names = tonumber(ARGV[at]), {}
    if not count then return '\n', at + 1 end
    for each = 1, count do
        local name = ARGV[at + each * 2 - 1]
        redis.call('HSETNX', values, name, ARGV[at + each * 2])
        redis.call('HINCRBY', uses, name, 1)
        names[each] = name
    end
    return ',' .. count .. '\n' .. table.concat(names), at + 1 + count * 2
end

-- Takes back what a payload that is gone has named. What nobody names any more goes.
local function let_go(stored)
    if not stored then return end
    for _, name in ipairs(named(stored)) do
        if redis.call('HINCRBY', uses, name, -1) <= 0 then
            redis.call('HDEL', uses, name)
            redis.call('HDEL', values, name)
        end
    end
end
