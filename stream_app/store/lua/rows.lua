-- Rows: functions that other scripts begin with. They read the form that store/rows.py describes: a row is the score in
-- ten-thousandths (i4), a flag (u1) and raw numbers, and stands in a block of the rows of consecutive segments.
--
-- ARGV[1]  msgpack map that has, beside what the script itself needs:
--            row_bytes   bytes of a row
--            block_size  rows of a block
--            weights     of a segment's neighbours and itself in the mean that is its final score
local args = cmsgpack.unpack(ARGV[1])
local UNREAD, SMOOTHED, SKIPPED = 0, 2, 3
local NO_SCORE = -2147483648
local REACH = (#args.weights - 1) / 2

local function block_key(prefix, block) return prefix .. ':' .. block end

-- Calls `visit` with each block of the segments [lo, hi): its number, the offset of its first byte of them, and their
-- number in it.
local function each_block(lo, hi, visit)
  while lo < hi do
    local block = math.floor(lo / args.block_size)
    local count = math.min(hi, (block + 1) * args.block_size) - lo
    visit(block, (lo - block * args.block_size) * args.row_bytes, count)
    lo = lo + count
  end
end

-- The rows of the segments [lo, hi); a row of zeros where there is none.
local function read_rows(prefix, lo, hi)
  lo = math.max(lo, 0)
  local parts = {}
  each_block(lo, hi, function(block, offset, count)
    local bytes = count * args.row_bytes
    local found = redis.call('GETRANGE', block_key(prefix, block), offset, offset + bytes - 1)
    parts[#parts + 1] = found .. string.rep('\0', bytes - #found)
  end)
  return { lo = lo, hi = hi, data = table.concat(parts) }
end

-- The flag of a segment; that of one outside the rows is UNREAD.
local function flag_of(rows, index)
  if index < rows.lo or index >= rows.hi then return UNREAD end
  return string.byte(rows.data, (index - rows.lo) * args.row_bytes + 5)
end

local function is_read(flag) return flag ~= UNREAD and flag ~= SKIPPED end

-- The segment's own score; nil if it has none.
local function own_score(rows, index)
  if not is_read(flag_of(rows, index)) then return nil end
  local units = struct.unpack('<i4', rows.data, (index - rows.lo) * args.row_bytes + 1)
  return units ~= NO_SCORE and units / 10000 or nil
end

-- The segment's score, averaged over its neighbours if its flag says so; nil if it has none. The sums and the rounding
-- are those of xl3m_core/smoothing.py, digit by digit.
local function final_score(rows, index)
  local own = own_score(rows, index)
  if not own or flag_of(rows, index) ~= SMOOTHED then return own end
  local total, weight = 0, 0
  for i, share in ipairs(args.weights) do
    local score = own_score(rows, index + i - 1 - REACH)
    if score then total, weight = total + share * score, weight + share end
  end
  return tonumber(string.format('%.4f', total / weight))
end
