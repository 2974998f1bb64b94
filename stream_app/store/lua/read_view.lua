-- Reads all that a query needs, as of one instant and in one reply.
--
-- KEYS     cursor, tail, questions; then range, top and text as prefixes that the question's id completes (all keys of
--          a stream are in one slot)
-- ARGV[1]  msgpack map:
--            qid  the question's id; '' for the standing question that was set last
-- Returns  the question's id ('' if there is no standing question), its record (false if the stream does not have it),
-- the reply of TIME (false without the right to it), then, in the order of the keys, the hash of the
-- cursor, the tail (false if there is none), the hash of the range, the top with its scores and the hash of the texts,
-- hashes and top as flat lists.
local qid, record = cmsgpack.unpack(ARGV[1]).qid, false
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
local time = redis.pcall('TIME')
return {
  qid,
  record,
  not time.err and time,
  redis.call('HGETALL', KEYS[1]),
  redis.call('GET', KEYS[2]),
  redis.call('HGETALL', KEYS[4] .. qid),
  redis.call('ZRANGE', KEYS[5] .. qid, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[6] .. qid),
}
