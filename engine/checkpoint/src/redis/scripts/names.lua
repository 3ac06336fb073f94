-- Stands before every script: what the keys of a thread are called. A tenant's and a thread's name hold no slash, and the
-- namespace comes last, so that no two threads have one key.
local P, T, N = ARGV[1], ARGV[2], ARGV[3]
local full = T .. '/' .. N
local thread = P .. 'thread:' .. full       -- hash: epoch, last, head, branch, run, graph, status, error
local infos = P .. 'infos:' .. full         -- sorted set by number: seq,parent,length of run,run and info
local payloads = P .. 'payloads:' .. full   -- hash by number: S or D, parent, line feed, bytes; or W, line feed, and for each
                                            -- part from the oldest its length and a comma, then a line feed and all of them
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
