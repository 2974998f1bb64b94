-- Appends segments to a stream's log, replaces its tail and moves its offset, or changes nothing.
--
-- KEYS     log, tail, cursor
-- ARGV[1]  msgpack map:
--            version       the stream's version that the caller started from
--            partition     the topic/partition that was read; epoch: that of its owner
--            next_offset   the first offset of the partition that is not part of the stream yet
--            gaps          missing offsets that were found before it
--            tail          the new tail
--            segments      the new segments, in order
--            max_segments  the log's retention; max_bytes: the same in bytes of packed segments
--            run_id        the Redis process that may be written to; '' for any
--            cut           how segments are cut from here on (see ingest/segmentation.py); 0: as before
-- Returns  msgpack map with `result`:
--            committed     written; with version, head, first, and questions (the questions' version)
--            conflict      another worker has written the stream since `version`
--            fenced        a later owner of the partition has written the stream
--            restarted     this is another Redis process than `run_id`
local log, tail, cursor = KEYS[1], KEYS[2], KEYS[3]
local args = cmsgpack.unpack(ARGV[1])
local epoch_field = 'epoch:' .. args.partition

local function number(field)
  return tonumber(redis.call('HGET', cursor, field) or 0)
end

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if args.run_id ~= '' and args.run_id ~= run_id then return cmsgpack.pack({ result = 'restarted' }) end
if number(epoch_field) > args.epoch then return cmsgpack.pack({ result = 'fenced' }) end
local version = number('version')
if version ~= args.version then return cmsgpack.pack({ result = 'conflict' }) end

local head, first, bytes = number('head'), number('first'), number('bytes')
if args.cut ~= 0 then redis.call('HSET', cursor, 'cut:' .. head, args.cut) end
for _, segment in ipairs(args.segments) do
  redis.call('XADD', log, head .. '-1', 's', segment)
  head, bytes = head + 1, bytes + #segment
end
while head - first > args.max_segments or (bytes > args.max_bytes and first < head) do
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', log, oldest[1])
  first, bytes = first + 1, bytes - #oldest[2][2]
end

redis.call('SET', tail, args.tail)
redis.call('HSET', cursor, 'version', version + 1, 'head', head, 'first', first, 'bytes', bytes,
  epoch_field, args.epoch, 'next:' .. args.partition, args.next_offset)
if args.gaps ~= 0 then redis.call('HINCRBY', cursor, 'gaps', args.gaps) end
return cmsgpack.pack({
  result = 'committed', version = version + 1, head = head, first = first, questions = number('questions'),
})
