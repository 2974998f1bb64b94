-- Extends a question's scored range and keeps its top-k, if the range is still as the caller saw it.
--
-- KEYS  range, top, text, cursor, then the score blocks written to
-- ARGV  lo, hi and rebuilt as the caller saw them, lo and hi now, segments skipped, k, number of candidates,
--       then for each: index, score, segment; then for each block: byte offset, scores
-- Returns 1 if the top-k changed, 0 if not, -1 if the range moved, was rebuilt or is gone, or would
-- pass the head: a Redis that lost its last writes has fewer segments than the caller has seen.
local range, top, text = KEYS[1], KEYS[2], KEYS[3]
local seen = redis.call('HMGET', range, 'lo', 'hi', 'rebuilt')
if seen[1] ~= ARGV[1] or seen[2] ~= ARGV[2] or (seen[3] or '0') ~= ARGV[3] then return -1 end
if tonumber(ARGV[5]) > tonumber(redis.call('HGET', KEYS[4], 'head') or 0) then return -1 end

redis.call('HSET', range, 'lo', ARGV[4], 'hi', ARGV[5])
if ARGV[6] ~= '0' then redis.call('HINCRBY', range, 'skipped', ARGV[6]) end

local at, added = 9, {}
for _ = 1, tonumber(ARGV[8]) do
  redis.call('ZADD', top, ARGV[at + 1], ARGV[at])
  added[ARGV[at]] = ARGV[at + 2]
  at = at + 3
end
-- Out goes the least certain; of equals the latest, which is the last by name: indices are zero-padded.
for _ = 1, redis.call('ZCARD', top) - tonumber(ARGV[7]) do
  local least = redis.call('ZRANGE', top, 0, 0, 'WITHSCORES')[2]
  local out = redis.call('ZREVRANGEBYSCORE', top, least, least, 'LIMIT', 0, 1)[1]
  redis.call('ZREM', top, out)
  redis.call('HDEL', text, out)
  added[out] = nil
end
local changed = 0
for index, segment in pairs(added) do
  redis.call('HSET', text, index, segment)
  changed = 1
end

for i = 5, #KEYS do
  redis.call('SETRANGE', KEYS[i], ARGV[at], ARGV[at + 1])
  at = at + 2
end
-- The range alone knows whether the question stays: what is written for it goes when it goes.
local left = redis.call('PTTL', range)
if left > 0 then
  for i = 2, #KEYS do
    if i ~= 4 then redis.call('PEXPIRE', KEYS[i], left) end
  end
end
return changed
