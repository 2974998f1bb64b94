-- Writes rows of a question, moves its scored range and updates its top-k, unless the range has changed since the caller
-- read it. Begins with rows.lua.
--
-- Rows may be written anywhere in the log, and the result is the same in any order: a row that is there already stays, and
-- none is written for a segment that the log no longer has. A segment enters the top-k by its final score once that is
-- settled: all neighbours it depends on are read, skipped or no longer in the log.
--
-- The text of a segment that enters the top-k is copied from the log to the question's texts, where it is kept
-- after the log is trimmed. A segment that is missing in the log does not enter the top-k, and counts as skipped.
--
-- KEYS     range, top, text, cursor, log; then the rows' blocks as a prefix that a colon and a block's number complete
--          (all keys of a stream are in one slot)
-- ARGV[1]  msgpack map, see also rows.lua:
--            seen  [lo, hi, rebuilt] of the range as the caller saw it
--            lo    the range from now on: [lo, hi)
--            hi
--            k     size of the top-k
--            runs  [index of the first segment, rows] of consecutive segments
-- Returns  msgpack map with `result`:
--            top_changed  written; the top-k has other segments or scores
--            extended     written; the top-k is as it was
--            conflict     the range was moved, rebuilt or deleted; or would pass the head: a Redis that lost its last
--                         writes has fewer segments than the caller has seen; or would pass an unread segment that is
--                         still in the log: then the rows are written all the same
--          and, unless it is a conflict, `read` (segments read for the question) and `skipped` (segments in the range that
--          were deleted before they were read)
local range, top, text, cursor, log, blocks = unpack(KEYS)
local head, first = unpack(redis.call('HMGET', cursor, 'head', 'first'))
head, first = tonumber(head or 0), tonumber(first or 0)
local lo, hi, rebuilt, old_first = unpack(redis.call('HMGET', range, 'lo', 'hi', 'rebuilt', 'first'))
lo, hi, rebuilt, old_first = tonumber(lo or -1), tonumber(hi or -1), tonumber(rebuilt or 0), tonumber(old_first or first)

local function conflict() return cmsgpack.pack({ result = 'conflict' }) end

local function is_as_seen()
  if lo ~= args.seen[1] or hi ~= args.seen[2] or rebuilt ~= args.seen[3] or args.hi > head then return false end
  for _, run in ipairs(args.runs) do
    if run[1] + #run[2] / args.row_bytes > head then return false end
  end
  return true
end

-- The run's rows that are to be written, and how many segments they make read: a row that is there already stays.
local function merged(rows)
  local old, count, parts = read_rows(blocks, rows.lo, rows.hi), 0, {}
  for index = rows.lo, rows.hi - 1 do
    local is_new = flag_of(old, index) == UNREAD
    if is_new and is_read(flag_of(rows, index)) then count = count + 1 end
    local at = (index - rows.lo) * args.row_bytes
    parts[#parts + 1] = string.sub((is_new and rows or old).data, at + 1, at + args.row_bytes)
  end
  return table.concat(parts), count
end

-- Writes a run's rows of segments that the log may still have; returns their indices [lo, hi), and how many became read.
local function write(run)
  local start, stop = run[1], run[1] + #run[2] / args.row_bytes
  local kept = math.max(start, math.min(first, stop))
  local data, count = merged({ lo = kept, hi = stop, data = string.sub(run[2], (kept - start) * args.row_bytes + 1) })
  local at = 1
  each_block(kept, stop, function(block, offset, rows)
    local bytes = rows * args.row_bytes
    redis.call('SETRANGE', block_key(blocks, block), offset, string.sub(data, at, at + bytes - 1))
    at = at + bytes
  end)
  return kept, stop, count
end

-- How many segments of [from, to) were never read; nil if one of them still may be.
local function count_skipped(from, to)
  local skipped, may_be_read = 0, false
  each_block(from, to, function(block, _, count)
    local start = math.max(from, block * args.block_size)
    if start + count <= first and redis.call('EXISTS', block_key(blocks, block)) == 0 then
      skipped = skipped + count
      return
    end
    local rows = read_rows(blocks, start, start + count)
    for index = rows.lo, rows.hi - 1 do
      local flag = flag_of(rows, index)
      may_be_read = may_be_read or (flag == UNREAD and index >= first)
      if not is_read(flag) then skipped = skipped + 1 end
    end
  end)
  return not may_be_read and skipped or nil
end

local function is_settled(rows, index)
  for near = math.max(index - REACH, first), index + REACH do
    if flag_of(rows, near) == UNREAD then return false end
  end
  return true
end

-- Whether segment a ranks before segment b.
local function is_better(a, b) return a.score > b.score or (a.score == b.score and a.index < b.index) end

-- The least certain segment of a full top-k; of equally certain ones the latest. Names are zero-padded indices.
local function weakest()
  if redis.call('ZCARD', top) < args.k then return nil end
  local score = redis.call('ZRANGE', top, 0, 0, 'WITHSCORES')[2]
  local name = redis.call('ZREVRANGEBYSCORE', top, score, score, 'LIMIT', 0, 1)[1]
  return { name = name, index = tonumber(name), score = tonumber(score) }
end

-- Adds to `found` the segments of [from, to) whose final score is settled and may enter the top-k, and of REACH more on
-- either side those that are smoothed: what was written in between may have settled them.
local function find_settled(found, from, to)
  local bound = weakest()
  local rows = read_rows(blocks, from - 2 * REACH, to + 2 * REACH)
  for index = math.max(from - REACH, first), to + REACH - 1 do
    local is_candidate = index >= from and index < to
    if flag_of(rows, index) == SMOOTHED then is_candidate = is_settled(rows, index) end
    local score = is_candidate and final_score(rows, index)
    local candidate = score and { index = index, score = score }
    if candidate and not (bound and is_better(bound, candidate)) then found[#found + 1] = candidate end
  end
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

-- Puts a segment into the top-k if it ranks high enough; whether that changes it.
local function enter_top(segment)
  local name = string.format('%012d', segment.index)
  if redis.call('ZSCORE', top, name) then return false end
  local out = weakest()
  if out and is_better(out, segment) or not has_text(name, segment.index) then return false end
  if out then drop(out.name) end
  redis.call('ZADD', top, segment.score, name)
  return true
end

-- Deletes the blocks that no segment of the log depends on any more.
local function delete_old_blocks()
  local function oldest(index) return math.floor(math.max(0, index - 2 * REACH) / args.block_size) end
  for block = oldest(old_first), oldest(first) - 1 do
    redis.call('UNLINK', block_key(blocks, block))
  end
end

if not is_as_seen() then return conflict() end

while redis.call('ZCARD', top) > args.k do  -- only if an update before had a larger k
  drop(weakest().name)
end
-- Segments at the beginning of the log are settled when it loses those before them.
local settled, read = {}, 0
if first > old_first then find_settled(settled, first, first) end
for _, run in ipairs(args.runs) do
  local from, to, count = write(run)
  find_settled(settled, from, to)
  read = read + count
end
table.sort(settled, is_better)
local result = 'extended'
for _, segment in ipairs(settled) do
  if enter_top(segment) then result = 'top_changed' end
end
read = redis.call('HINCRBY', range, 'read', read)

local before, behind = count_skipped(args.lo, lo), count_skipped(hi, args.hi)
delete_old_blocks()  -- only now: what was read in them is not skipped
redis.call('HSET', range, 'first', first, 'k', args.k)
local is_complete = before and behind
local skipped = redis.call('HINCRBY', range, 'skipped', is_complete and before + behind or 0)
if is_complete then redis.call('HSET', range, 'lo', args.lo, 'hi', args.hi) end

-- All keys of a question expire with its range.
local ttl = redis.call('PTTL', range)
if ttl > 0 then
  redis.call('PEXPIRE', top, ttl)
  redis.call('PEXPIRE', text, ttl)
  for _, run in ipairs(args.runs) do
    each_block(run[1], run[1] + #run[2] / args.row_bytes, function(block)
      redis.call('PEXPIRE', block_key(blocks, block), ttl)
    end)
  end
end
if not is_complete then return conflict() end
return cmsgpack.pack({ result = result, read = read, skipped = skipped })
