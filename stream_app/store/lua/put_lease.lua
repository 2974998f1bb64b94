-- Replaces a query's lease by a value, if the lease is the caller's or has expired, or if the value is there already.
--
-- KEYS     lease
-- ARGV[1]  msgpack map:
--            token   what the caller put there when it acquired the lease
--            value   what to put there; '' to delete the key
--            ttl_ms  the value's time to live in milliseconds
-- Returns  msgpack map with `result`:
--            put    the value is there
--            taken  the key holds another worker's lease or answer
local args = cmsgpack.unpack(ARGV[1])
local found = redis.call('GET', KEYS[1])
if found and found ~= args.token and found ~= args.value then return cmsgpack.pack({ result = 'taken' }) end
if args.value == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], args.value, 'PX', args.ttl_ms)
end
return cmsgpack.pack({ result = 'put' })
