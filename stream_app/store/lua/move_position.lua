-- Moves a partition's position, if it is where its owner left it, or has been moved there already.
--
-- KEYS     partition
-- ARGV[1]  msgpack map:
--            old     the position that the owner left; absent if it left none
--            new     the position to move to
--            epoch   the owner's
--            run_id  the Redis process that may be written to; '' for any
--            gap     missing offsets before the position that no stream has counted yet
-- Returns  msgpack map with `result`:
--            moved      the position is `new`
--            elsewhere  the position is neither `old` nor `new`: Redis has lost writes
--            fenced     the partition has a later owner
--            restarted  this is another Redis process than `run_id`: writes before the position may be lost
local args = cmsgpack.unpack(ARGV[1])
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if args.run_id ~= '' and args.run_id ~= run_id then return cmsgpack.pack({ result = 'restarted' }) end
local position, epoch = unpack(redis.call('HMGET', KEYS[1], 'next', 'epoch'))
if tonumber(epoch or 0) > args.epoch then return cmsgpack.pack({ result = 'fenced' }) end
position = position and tonumber(position) or nil
if position ~= args.old and position ~= args.new then return cmsgpack.pack({ result = 'elsewhere' }) end
redis.call('HSET', KEYS[1], 'next', args.new, 'gap', args.gap)
return cmsgpack.pack({ result = 'moved' })
