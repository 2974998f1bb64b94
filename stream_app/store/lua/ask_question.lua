-- Gives a stream a question. Its range starts empty at the head, unless it has one. Expired, replaced and evicted
-- questions are deleted with all their keys.
--
-- KEYS     cursor, questions; then range, top, text and rows as prefixes that a question's id completes (all keys of
--          a stream are in one slot); then, if the question is fenced, the partition
-- ARGV[1]  msgpack map:
--            qid         the question's id
--            record      the question as it is kept
--            keep        whether the stream's other standing questions stay; if not, they end
--            limit       how many questions of its kind (standing, ad hoc) there may be
--            now         the time in seconds, in case this user has no right to TIME
--            block_size  rows of a block
--            epoch       the caller's, if the question is fenced
-- Returns  msgpack map with `result`:
--            set       the stream has the question
--            standing  the ad hoc question is a standing one already, and stays so
--            fenced    the partition has a later owner
--            full      there are as many standing questions as there may be
local cursor, questions = KEYS[1], KEYS[2]
local args = cmsgpack.unpack(ARGV[1])
local qid, record = args.qid, args.record
if KEYS[7] and tonumber(redis.call('HGET', KEYS[7], 'epoch') or 0) > args.epoch then
  return cmsgpack.pack({ result = 'fenced' })
end

local time, now = redis.pcall('TIME'), args.now
if not time.err then now = time[1] + time[2] / 1000000 end
local blocks = math.floor(tonumber(redis.call('HGET', cursor, 'head') or 0) / args.block_size) + 1

-- One block more than the head needs, in case it moves meanwhile.
local function keys_of(id)
  local keys = { KEYS[3] .. id, KEYS[4] .. id, KEYS[5] .. id }
  for block = 0, blocks do
    keys[#keys + 1] = KEYS[6] .. id .. ':' .. block
  end
  return keys
end

local function expiry_of(packed) return cmsgpack.unpack(packed)[2] end

local expires_at = expiry_of(record)
local is_known, deleted, rivals = false, {}, {}
local known = redis.call('HGETALL', questions)
for i = 1, #known, 2 do
  local id, expiry = known[i], expiry_of(known[i + 1])
  local same_kind = (expiry == 0) == (expires_at == 0)
  if id == qid then
    if expiry == 0 and expires_at ~= 0 then return cmsgpack.pack({ result = 'standing' }) end
    is_known = same_kind
  elseif (expiry > 0 and expiry < now) or (expiry == 0 and not args.keep) then
    deleted[#deleted + 1] = id
  elseif same_kind then
    rivals[#rivals + 1] = { id = id, expiry = expiry, order = i }
  end
end

local excess = #rivals - args.limit + 1
if not is_known and excess > 0 then
  if expires_at == 0 then return cmsgpack.pack({ result = 'full' }) end
  table.sort(rivals, function(a, b) return a.expiry < b.expiry or (a.expiry == b.expiry and a.order < b.order) end)
  for i = 1, excess do
    deleted[#deleted + 1] = rivals[i].id
  end
end

-- Written before anything is deleted: if Redis is full, it refuses this first write, and nothing has changed.
local head = redis.call('HGET', cursor, 'head') or '0'
redis.call('HSETNX', KEYS[3] .. qid, 'lo', head)
redis.call('HSETNX', KEYS[3] .. qid, 'hi', head)
for _, key in ipairs(keys_of(qid)) do
  if expires_at == 0 then
    redis.call('PERSIST', key)
  else
    redis.call('EXPIREAT', key, string.format('%.0f', math.floor(expires_at)))
  end
end
redis.call('HSET', questions, qid, record)
for _, id in ipairs(deleted) do
  redis.call('HDEL', questions, id)
  for _, key in ipairs(keys_of(id)) do
    redis.call('UNLINK', key)
  end
end
redis.call('HINCRBY', cursor, 'questions', 1)
return cmsgpack.pack({ result = 'set' })
