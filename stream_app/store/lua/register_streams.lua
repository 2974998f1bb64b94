-- Puts streams on the lists, if they are there already or there is room for one more.
--
-- KEYS  the list of all streams, then for each stream the list of what feeds it
-- ARGV  how many streams there may be, then each stream, in the order of its list
-- Returns those for which there is no room.
local refused = {}
for i = 2, #ARGV do
  local known = redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1
  if known or redis.call('SCARD', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('SADD', KEYS[1], ARGV[i])
    redis.call('SADD', KEYS[i], ARGV[i])
  else
    refused[#refused + 1] = ARGV[i]
  end
end
return refused
