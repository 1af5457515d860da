"""The two atomic steps of limits: reserve, and settle. Each in Lua and in Python, which do the same.

A window of requests or tokens is a record of one amount per second. Whatever was counted in the last 60 full
seconds and in this one counts, so never is more than the limit used in any 60 seconds; what was used is free
again after 60 to 61 of them. Calls at once are a set of leases, each with an end of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from router_server.state.store import Argument, Cells, Reply, Script

COUNTED: Final = 61
"""Seconds whose amounts count: the last 60, and the one that has begun."""

_LIFE: Final = COUNTED + 1
"""Seconds that a window is kept after its last change."""

PLACES: Final = "places"
"""The sort of a limit of calls at once; every other is a window."""

_A_MOMENT: Final = 1_000
"""Milliseconds after which it is worth asking for a place again: nobody knows when one comes free."""

_RESERVE: Final = """
local second = math.floor(now / 1000)
local reply, longest = {-1, 0, second}, -1
for at, key in ipairs(KEYS) do
  local sort, limit, amount = ARGV[3 * at], tonumber(ARGV[3 * at + 1]), tonumber(ARGV[3 * at + 2])
  local total, wait, reset = 0, 0, 0
  if sort == 'places' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    total = redis.call('ZCARD', key)
    wait = 1000
  else
    local cells, flat = {}, redis.call('HGETALL', key)
    for i = 1, #flat, 2 do
      local began = tonumber(flat[i])
      if began + 61 > second then
        cells[#cells + 1] = {began, tonumber(flat[i + 1])}
        total = total + tonumber(flat[i + 1])
      else
        redis.call('HDEL', key, flat[i])
      end
    end
    table.sort(cells, function(a, b) return a[1] < b[1] end)
    if #cells > 0 then reset = (cells[#cells][1] + 61) * 1000 - now end
    local excess = total + amount - limit
    for _, cell in ipairs(cells) do
      if excess <= 0 then break end
      excess = excess - cell[2]
      wait = (cell[1] + 61) * 1000 - now
    end
  end
  if total + amount > limit and wait > longest then
    reply[1], reply[2], longest = at - 1, wait, wait
  end
  reply[2 + 2 * at], reply[3 + 2 * at] = math.max(0, limit - total), reset
end
if reply[1] >= 0 then return reply end
local life = tonumber(ARGV[2])
for at, key in ipairs(KEYS) do
  local amount = tonumber(ARGV[3 * at + 2])
  if ARGV[3 * at] == 'places' then
    redis.call('ZADD', key, now + life, ARGV[1])
    if redis.call('PTTL', key) < life + 60000 then redis.call('PEXPIRE', key, life + 60000) end
  elseif amount > 0 then
    redis.call('HINCRBY', key, second, amount)
    redis.call('PEXPIRE', key, 62000)
    reply[3 + 2 * at] = (second + 61) * 1000 - now
  end
  reply[2 + 2 * at] = reply[2 + 2 * at] - amount
end
return reply
"""

_SETTLE: Final = """
local second = math.floor(now / 1000)
for at, key in ipairs(KEYS) do
  local more = tonumber(ARGV[2 * at + 2])
  if ARGV[2 * at + 1] == 'places' then
    redis.call('ZREM', key, ARGV[1])
  elseif more > 0 then
    redis.call('HINCRBY', key, second, more)
    redis.call('PEXPIRE', key, 62000)
  elseif more < 0 then
    local there = tonumber(redis.call('HGET', key, ARGV[2]) or '0')
    if there + more > 0 then
      redis.call('HINCRBY', key, ARGV[2], more)
    else
      redis.call('HDEL', key, ARGV[2])
    end
  end
end
return {}
"""


@dataclass(slots=True)
class _Used:
    """How far one limit is used: the total, when enough is free for what is asked, when all of it is."""

    total: int
    wait: int
    reset: int


def _reserve(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    now, second = cells.now, cells.now // 1_000
    asked = [_asked(arguments, at) for at in range(len(keys))]
    used = [
        _used_places(cells, key, now) if sort == PLACES else _used_window(cells, key, now, limit - amount)
        for key, (sort, limit, amount) in zip(keys, asked, strict=True)
    ]
    over = [at for at, (_sort, limit, amount) in enumerate(asked) if used[at].total + amount > limit]
    refused = max(over, key=lambda at: used[at].wait, default=-1)
    if refused < 0:
        for key, (sort, _limit, amount), one in zip(keys, asked, used, strict=True):
            one.total += amount
            if sort == PLACES:
                leases = {**(cells.get(key) or {}), arguments[0]: now + int(arguments[1])}
                cells.put(key, leases, max(0, max(leases.values()) - now) / 1_000)
            elif amount > 0:
                _count(cells, key, second, amount)
                one.reset = (second + COUNTED) * 1_000 - now
    standings = [
        part
        for (_s, limit, _a), one in zip(asked, used, strict=True)
        for part in (max(0, limit - one.total), one.reset)
    ]
    return [refused, used[refused].wait if refused >= 0 else 0, second, *standings]


def _asked(arguments: Sequence[Argument], at: int) -> tuple[str, int, int]:
    sort, limit, amount = arguments[2 + 3 * at : 5 + 3 * at]
    return str(sort), int(limit), int(amount)


def _used_places(cells: Cells, key: str, now: int) -> _Used:
    leases: dict[Argument, int] = {one: end for one, end in (cells.get(key) or {}).items() if end > now}
    if leases:
        cells.put(key, leases, (max(leases.values()) - now) / 1_000)
    else:
        cells.drop(key)
    return _Used(len(leases), _A_MOMENT, 0)


def _used_window(cells: Cells, key: str, now: int, room: int) -> _Used:
    """Return how far a window is used; ``room`` is the total at which what is asked would fit."""
    counted: dict[int, int] = cells.get(key) or {}
    counted = {began: n for began, n in sorted(counted.items()) if began + COUNTED > now // 1_000}
    total = sum(counted.values())
    excess, wait, reset = total - room, 0, 0
    for began, amount in counted.items():
        reset = (began + COUNTED) * 1_000 - now
        if excess > 0:
            excess -= amount
            wait = reset
    return _Used(total, wait, reset)


def _count(cells: Cells, key: str, second: int, amount: int) -> None:
    counted: dict[int, int] = cells.get(key) or {}
    kept = {began: n for began, n in counted.items() if began + COUNTED > second}
    kept[second] = kept.get(second, 0) + amount
    cells.put(key, kept, _LIFE)


def _settle(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    lease, reserved_at = arguments[0], int(arguments[1])
    for at, key in enumerate(keys):
        sort, more = arguments[2 + 2 * at], int(arguments[3 + 2 * at])
        there = cells.get(key) or {}
        if sort == PLACES:
            leases = {one: end for one, end in there.items() if one != lease}
            cells.put(key, leases, max([0, *(end - cells.now for end in leases.values())]) / 1_000)
        elif more > 0:
            _count(cells, key, cells.now // 1_000, more)
        elif more < 0 and reserved_at in there:
            left = there[reserved_at] + more
            kept = {began: n for began, n in there.items() if began != reserved_at}
            cells.put(key, {**kept, reserved_at: left} if left > 0 else kept, _LIFE)
    return []


RESERVE: Final = Script("reserve", _RESERVE, _reserve)
"""Keys: of limits. Arguments: a lease's name and life in milliseconds, then of each limit its sort, how much
there is and how much is asked, which is no more.

Answers with the number of the limit that refuses, counted from 0, or -1; its wait in milliseconds; the second
in which was counted; then of each limit what is left, and the milliseconds until all of it is."""

SETTLE: Final = Script("settle", _SETTLE, _settle)
"""Keys: of the same limits. Arguments: the lease's name, the second of the reservation, then of each limit
its sort and how much more was used than was reserved, or how much less."""
