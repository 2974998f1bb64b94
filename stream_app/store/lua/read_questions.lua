-- Reads a stream's cursor and its questions with their ranges, as of one instant and in one reply.
--
-- KEYS  cursor, questions; then range as a prefix that a question's id completes (all keys of a stream are in one slot)
-- Returns the reply of TIME (false without the right to it), the hashes of cursor and questions as flat
-- lists, and for each question, in that order, the hash of its range as a flat list.
local time = redis.pcall('TIME')
local questions, ranges = redis.call('HGETALL', KEYS[2]), {}
for i = 1, #questions, 2 do
  ranges[#ranges + 1] = redis.call('HGETALL', KEYS[3] .. questions[i])
end
return { not time.err and time, redis.call('HGETALL', KEYS[1]), questions, ranges }
