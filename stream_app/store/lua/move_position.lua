-- Moves a partition's position, if it is where its owner left it, or already where it is to go.
--
-- KEYS  partition
-- ARGV  position the owner left it at ('' for none), position to move to, the owner's epoch, run id
--       of the Redis it trusts ('' for any), offsets missing before it that no stream has counted yet
-- Returns 1; 0 if it stands elsewhere; -1 if the partition has a later owner; -2 if Redis has been
-- started again: what is to stand before the position may be lost.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if ARGV[4] ~= '' and ARGV[4] ~= run then return -2 end
local seen = redis.call('HMGET', KEYS[1], 'next', 'epoch')
local next, epoch = seen[1] or '', tonumber(seen[2] or 0)
if epoch > tonumber(ARGV[3]) then return -1 end
if next ~= ARGV[1] and next ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'next', ARGV[2], 'gap', ARGV[5])
return 1
