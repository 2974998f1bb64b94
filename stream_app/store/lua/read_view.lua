-- Reads all that a query needs, as of one instant and in one reply. Begins with rows.lua.
--
-- KEYS     cursor, tail, questions, log; then range, top, text and the rows' blocks as prefixes that the question's id
--          completes (all keys of a stream are in one slot)
-- ARGV[1]  msgpack map, see also rows.lua:
--            qid  the question's id; '' for the standing question that was set last
-- Returns  the question's id ('' if there is no standing question), its record (false if the stream does not have it),
-- the reply of TIME (false without the right to it), then, in the order of the keys, the hash of the cursor, the tail
-- (false if there is none), the hash of the range, the top with its scores and the hash of the texts, hashes and top as
-- flat lists; and at last, if the range covers the log, its edges: for the beginning and for the end of the log the first
-- index, the rows of REACH segments and of those they depend on, and the entries in the log of these segments. The end
-- is not settled before more segments follow, nor is the beginning if the log was trimmed since a row was written.
local qid, record = args.qid, false
if qid ~= '' then
  record = redis.call('HGET', KEYS[3], qid)
else
  local fields, latest = redis.call('HGETALL', KEYS[3]), nil
  for i = 1, #fields, 2 do
    local _, expires_at, set_at = unpack(cmsgpack.unpack(fields[i + 1]))
    if expires_at == 0 and (not latest or set_at > latest) then
      qid, record, latest = fields[i], fields[i + 1], set_at
    end
  end
end

-- The edge of the segments [from, to). Only the texts of those that are smoothed are read: others are settled.
local function edge(from, to, head)
  local rows = read_rows(KEYS[8] .. qid, from - REACH, math.min(to + REACH, head))
  local entries = {}
  for index = from, to - 1 do
    local id = string.format('%d-1', index)
    local is_open = flag_of(rows, index) == SMOOTHED
    entries[#entries + 1] = is_open and redis.call('XRANGE', KEYS[4], id, id)[1] or nil
  end
  return { rows.lo, rows.data, entries }
end

local function edges()
  local head, first = unpack(redis.call('HMGET', KEYS[1], 'head', 'first'))
  local lo, hi, old_first = unpack(redis.call('HMGET', KEYS[5] .. qid, 'lo', 'hi', 'first'))
  head, first, old_first = tonumber(head or 0), tonumber(first or 0), tonumber(old_first or 0)
  if not lo or tonumber(hi) < head or tonumber(lo) > first then return {} end
  local last = edge(math.max(first, head - REACH), head, head)
  if old_first == first then return { last } end
  return { edge(first, math.min(first + REACH, head), head), last }
end

local time = redis.pcall('TIME')
return {
  qid,
  record,
  not time.err and time,
  redis.call('HGETALL', KEYS[1]),
  redis.call('GET', KEYS[2]),
  redis.call('HGETALL', KEYS[5] .. qid),
  redis.call('ZRANGE', KEYS[6] .. qid, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[7] .. qid),
  edges(),
}
