-- Reads all that a query needs, as of one instant and in one reply.
--
-- KEYS  cursor, tail, range, top, text
-- Returns the hashes of cursor, range and text and the top with its scores as flat lists, the tail
-- (false if there is none) among them, in the order of the keys.
return {
  redis.call('HGETALL', KEYS[1]),
  redis.call('GET', KEYS[2]),
  redis.call('HGETALL', KEYS[3]),
  redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[5]),
}
