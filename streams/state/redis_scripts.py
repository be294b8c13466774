"""The Lua scripts of the Redis store. Each one touches the keys of a single hash tag, all of them named in KEYS.

KEYS[1] of a fenced script is the partition's fence (`epoch`, `seq`), ARGV[1] the epoch and ARGV[2] the number of the write.
They answer 0 applied, 1 applied before (the same write, sent again), -1 another epoch, -2 the store went back, -3 another
applied offset.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

_FENCE = """
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if fence[1] ~= ARGV[1] then return {-1, fence[1] or '0'} end
if tonumber(fence[2]) >= tonumber(ARGV[2]) then return {1, fence[2]} end
if tonumber(fence[2]) ~= tonumber(ARGV[2]) - 1 then return {-2, fence[2]} end
"""

_WRITTEN = """
redis.call('HSET', KEYS[1], 'seq', ARGV[2])
return {0, ARGV[2]}
"""


@dataclass(frozen=True)
class Script:
    """A script and the name that the server knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The server's own name for a script; nothing is secured by it.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# An epoch is a time in milliseconds, so that one that the store has lost is never given again (docs/adr/0005-redis-layout.md).
CLAIM = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') + 1)
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', '0')
return epoch
""")

# KEYS[2..]: one hash for each bucket. ARGV[3..]: for each of them, how many arguments to set, those, how many fields to
# remove, those.
WRITE_ACCOUNTS = Script(
    _FENCE
    + """
local at = 3
for i = 2, #KEYS do
  local n = tonumber(ARGV[at])
  if n > 0 then redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + n)) end
  at = at + n + 1
  n = tonumber(ARGV[at])
  if n > 0 then redis.call('HDEL', KEYS[i], unpack(ARGV, at + 1, at + n)) end
  at = at + n + 1
end
"""
    + _WRITTEN
)

WRITE_CONTROL = Script(_FENCE + "redis.call('SET', KEYS[2], ARGV[3])" + _WRITTEN)

# ARGV: expected applied ('' = no head), applied, head.
WRITE_HEAD = Script(
    _FENCE
    + """
local applied = redis.call('HGET', KEYS[2], 'applied') or ''
if applied ~= ARGV[3] then return {-3, applied} end
redis.call('HSET', KEYS[2], 'applied', ARGV[4], 'head', ARGV[5])
"""
    + _WRITTEN
)

CLEAR = Script(_FENCE + "for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end" + _WRITTEN)

# KEYS: fence, hash id -> "offset index\n" + entry, sorted set of ids by event time. ARGV[3]: how many are kept; then for
# each entry: id, event time, offset, index, entry.
PUT_RECOMMENDATIONS = Script(
    _FENCE
    + """
for i = 4, #ARGV, 5 do
  local id, time, offset, index, entry = unpack(ARGV, i, i + 4)
  local old = redis.call('HGET', KEYS[2], id)
  local o, x = -1, -1
  if old then
    o, x = string.match(old, '^(%d+) (%d+)\\n')
    o, x = tonumber(o), tonumber(x)
  end
  if o < tonumber(offset) or (o == tonumber(offset) and x <= tonumber(index)) then
    redis.call('HSET', KEYS[2], id, offset .. ' ' .. index .. '\\n' .. entry)
    redis.call('ZADD', KEYS[3], time, id)
  end
end
local over = math.min(1000, redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[3]))
if over > 0 then
  redis.call('HDEL', KEYS[2], unpack(redis.call('ZRANGE', KEYS[3], 0, over - 1)))
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, over - 1)
end
"""
    + _WRITTEN
)

# ARGV: field, the value it has now ('' = none), the new value. 1 when it was set.
REPLACE_FIELD = Script("""
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")

RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

ALL = (
    CLAIM,
    WRITE_ACCOUNTS,
    WRITE_CONTROL,
    WRITE_HEAD,
    CLEAR,
    PUT_RECOMMENDATIONS,
    REPLACE_FIELD,
    RENEW,
    RELEASE,
)
