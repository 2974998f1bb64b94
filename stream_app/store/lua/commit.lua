-- Appends segments, replaces the tail and moves the offset: all of it, or nothing.
--
-- KEYS  log, tail, cursor
-- ARGV  version the caller started from, topic/partition, epoch, next offset, gaps found,
--       tail, most segments, most bytes, run id of the Redis it trusts ('' for any), how segments are
--       cut from here on ('0' for as before), then the segments
-- Returns {1, version, head, first, question version}; {0} if another wrote meanwhile;
-- {-1} if a later owner of the partition has written: the caller is a zombie; {-2} if Redis has
-- been started again since the caller looked at it.
local log, tail, cursor = KEYS[1], KEYS[2], KEYS[3]
local partition, epoch = ARGV[2], tonumber(ARGV[3])

local function number(field)
  return tonumber(redis.call('HGET', cursor, field) or 0)
end

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if ARGV[9] ~= '' and ARGV[9] ~= run then return {-2} end
if number('epoch:' .. partition) > epoch then return {-1} end
local version = number('version')
if version ~= tonumber(ARGV[1]) then return {0} end

local head, first, bytes = number('head'), number('first'), number('bytes')
if ARGV[10] ~= '0' then redis.call('HSET', cursor, 'cut:' .. head, ARGV[10]) end
for i = 11, #ARGV do
  redis.call('XADD', log, head .. '-1', 's', ARGV[i])
  head, bytes = head + 1, bytes + #ARGV[i]
end
while head - first > tonumber(ARGV[7]) or (bytes > tonumber(ARGV[8]) and first < head) do
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', log, oldest[1])
  first, bytes = first + 1, bytes - #oldest[2][2]
end

redis.call('SET', tail, ARGV[6])
redis.call('HSET', cursor, 'version', version + 1, 'head', head, 'first', first, 'bytes', bytes,
  'epoch:' .. partition, epoch, 'next:' .. partition, ARGV[4])
if ARGV[5] ~= '0' then redis.call('HINCRBY', cursor, 'gaps', ARGV[5]) end
return {1, version + 1, head, first, number('questions')}
