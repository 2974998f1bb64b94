-- Extends a question's scored range and its top-k, unless the range has changed since the caller read it.
--
-- The text of a segment that enters the top-k is copied from the log to the question's texts, where it is kept
-- after the log is trimmed. A segment that was deleted from the log since it was read does not enter the top-k; its score is
-- written, and the range covers it.
--
-- KEYS     range, top, text, cursor, log, then the score blocks that are written to
-- ARGV[1]  msgpack map:
--            seen        [lo, hi, rebuilt] of the range as the caller saw it
--            lo, hi      the range from now on
--            skipped     segments of it that were deleted before they were read
--            k           size of the top-k
--            candidates  [index, score] of each segment that may enter the top-k
--            blocks      [byte offset, scores] for each score block
-- Returns  msgpack map with `result`:
--            top_changed  written; the top-k has other segments or scores
--            extended     written; the top-k is as it was
--            conflict     the range was moved, rebuilt or deleted, or would pass the head: a Redis that lost its last
--                         writes has fewer segments than the caller has seen
local range, top, text, cursor, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FIRST_BLOCK = 5
local args = cmsgpack.unpack(ARGV[1])

local function is_as_seen()
  local lo, hi, rebuilt = unpack(redis.call('HMGET', range, 'lo', 'hi', 'rebuilt'))
  return lo and tonumber(lo) == args.seen[1] and tonumber(hi) == args.seen[2]
    and tonumber(rebuilt or 0) == args.seen[3]
    and args.hi <= tonumber(redis.call('HGET', cursor, 'head') or 0)
end

-- The least certain segment of the top-k; of equally certain ones the latest. Names are zero-padded indices.
local function weakest()
  local score = redis.call('ZRANGE', top, 0, 0, 'WITHSCORES')[2]
  return redis.call('ZREVRANGEBYSCORE', top, score, score, 'LIMIT', 0, 1)[1]
end

local function drop(name)
  redis.call('ZREM', top, name)
  redis.call('HDEL', text, name)
end

-- Copies the segment's text from the log to the question's texts; false if neither has it.
local function has_text(name, index)
  if redis.call('HEXISTS', text, name) == 1 then return true end
  local id = string.format('%d-1', index)
  local entry = redis.call('XRANGE', log, id, id)[1]
  if entry then redis.call('HSET', text, name, entry[2][2]) end
  return entry ~= nil
end

-- Whether the segment enters the top-k, or is in it with another score.
local function enters_top(index, score)
  local name = string.format('%012d', index)
  redis.call('ZADD', top, score, name)
  local out = redis.call('ZCARD', top) > args.k and weakest()
  if out == name or not has_text(name, index) then
    redis.call('ZREM', top, name)
    return false
  end
  if out then drop(out) end
  return true
end

if not is_as_seen() then return cmsgpack.pack({ result = 'conflict' }) end

redis.call('HSET', range, 'lo', args.lo, 'hi', args.hi)
if args.skipped ~= 0 then redis.call('HINCRBY', range, 'skipped', args.skipped) end
while redis.call('ZCARD', top) > args.k do  -- only if an update before had a larger k
  drop(weakest())
end
local result = 'extended'
for _, candidate in ipairs(args.candidates) do
  if enters_top(candidate[1], candidate[2]) then result = 'top_changed' end
end
for i, block in ipairs(args.blocks) do
  redis.call('SETRANGE', KEYS[FIRST_BLOCK + i], block[1], block[2])
end

-- All keys of a question expire with its range.
local ttl = redis.call('PTTL', range)
if ttl > 0 then
  redis.call('PEXPIRE', top, ttl)
  redis.call('PEXPIRE', text, ttl)
  for i = FIRST_BLOCK + 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
end
return cmsgpack.pack({ result = result })
