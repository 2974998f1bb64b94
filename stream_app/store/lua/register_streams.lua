-- Adds streams to the lists, unless they are new and the limit is reached.
--
-- KEYS     the list of all streams, then for each stream the list of the partition that feeds it
-- ARGV[1]  msgpack map:
--            limit    how many streams there may be
--            streams  their names, in the order of their lists
-- Returns  msgpack map:
--            refused  the streams for which there is no room
local args, refused = cmsgpack.unpack(ARGV[1]), {}
for i, stream in ipairs(args.streams) do
  local is_known = redis.call('SISMEMBER', KEYS[1], stream) == 1
  if is_known or redis.call('SCARD', KEYS[1]) < args.limit then
    redis.call('SADD', KEYS[1], stream)
    redis.call('SADD', KEYS[i + 1], stream)
  else
    refused[#refused + 1] = stream
  end
end
return cmsgpack.pack({ refused = refused })
