-- Puts a value in the place of a claim, if that is still the caller's, or nobody's any more, or put.
--
-- KEYS  claim
-- ARGV  what the caller wrote there, the value ('' to leave nothing), its time to live in milliseconds
-- Returns 1; 0 if another has claimed or answered it.
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] and there ~= ARGV[2] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
