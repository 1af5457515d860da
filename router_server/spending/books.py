"""The atomic steps of the books, in Lua for Redis and in Python for memory: reserve, settle.

A book is one budget in one period: what is spent, and what is reserved by holds that each end by themselves.
What is spent only grows; whoever asks says how much it has heard of, so that a Redis that forgot goes on from
there. Refuses to know whose books they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from router_server.state.store import Argument, Cells, Reply, Script

_SWEPT: Final = 100
"""Holds that have ended and are cleared in one step, at most."""

_BATCH_LIFE: Final = 86_400.0

_LUA_COMMON: Final = """
local function number(book, field)
  return tonumber(redis.call('HGET', book, field) or '0')
end
local function at_least(book, floor)
  if number(book, 'spent') < tonumber(floor) then redis.call('HSET', book, 'spent', floor) end
end
"""

_RESERVE_LUA: Final = (
    _LUA_COMMON
    + f"""
local hold, amount, lasting = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = #KEYS / 2
local reply = {{0}}
for i = 1, count do
  local book, holds = KEYS[2 * i - 1], KEYS[2 * i]
  local limit, floor, ttl = unpack(ARGV, 3 * i + 1, 3 * i + 3)
  for _, ended in ipairs(redis.call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, {_SWEPT})) do
    redis.call('ZREM', holds, ended)
    redis.call('HINCRBY', book, 'reserved', '-' .. string.match(ended, '^%d+'))
  end
  at_least(book, floor)
  redis.call('PEXPIRE', book, ttl)
  local spent, reserved = number(book, 'spent'), number(book, 'reserved')
  reply[#reply + 1] = spent
  reply[#reply + 1] = reserved
  if reply[1] == 0 and spent + reserved + tonumber(amount) > tonumber(limit) then reply[1] = i end
end
if reply[1] > 0 then return reply end
for i = 1, count do
  local book, holds, ttl = KEYS[2 * i - 1], KEYS[2 * i], ARGV[3 * i + 3]
  reply[2 * i + 1] = redis.call('HINCRBY', book, 'reserved', amount)
  redis.call('ZADD', holds, now + lasting, amount .. ':' .. hold)
  redis.call('PEXPIRE', book, ttl)
  redis.call('PEXPIRE', holds, ttl)
end
return reply
"""
)

_SETTLE_LUA: Final = (
    _LUA_COMMON
    + f"""
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return {{}} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', {round(_BATCH_LIFE * 1_000)})
local reply = {{}}
for i = 1, (#KEYS - 1) / 2 do
  local book, holds = KEYS[2 * i], KEYS[2 * i + 1]
  local hold, amount, cost, floor, ttl = unpack(ARGV, 5 * i - 3, 5 * i + 1)
  if redis.call('ZREM', holds, amount .. ':' .. hold) == 1 then
    redis.call('HINCRBY', book, 'reserved', '-' .. amount)
  end
  at_least(book, floor)
  reply[#reply + 1] = redis.call('HINCRBY', book, 'spent', cost)
  reply[#reply + 1] = number(book, 'reserved')
  redis.call('PEXPIRE', book, ttl)
end
return reply
"""
)

_Book = dict[str, int]
_Holds = dict[str, int]


def _read(cells: Cells, book: str, holds: str) -> tuple[_Book, _Holds]:
    kept: _Book | None = cells.get(book)
    held: _Holds | None = cells.get(holds)
    return {"spent": 0, "reserved": 0} if kept is None else kept, {} if held is None else held


def _reserve(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    hold, amount, lasting = str(arguments[0]), int(arguments[1]), int(arguments[2])
    reply: list[Any] = [0]
    opened = []
    for i in range(len(keys) // 2):
        limit, floor, ttl = map(int, arguments[3 + 3 * i : 6 + 3 * i])
        book, holds = _read(cells, keys[2 * i], keys[2 * i + 1])
        # The oldest alone are looked at: here no hold outlives the process that made it.
        while holds and holds[oldest := next(iter(holds))] <= cells.now:
            del holds[oldest]
            book["reserved"] -= int(oldest.partition(":")[0])
        book["spent"] = max(book["spent"], floor)
        reply += [book["spent"], book["reserved"]]
        if not reply[0] and book["spent"] + book["reserved"] + amount > limit:
            reply[0] = i + 1
        opened.append((book, holds, ttl / 1_000))
    for i, (book, holds, life) in enumerate(opened):
        if not reply[0]:
            book["reserved"] += amount
            holds[f"{amount}:{hold}"] = cells.now + lasting
            reply[2 * i + 2] = book["reserved"]
        cells.put(keys[2 * i], book, life)
        cells.put(keys[2 * i + 1], holds, life)
    return reply


def _settle(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    if (cells.get(keys[0]) or 0) >= int(arguments[0]):
        return []
    cells.put(keys[0], int(arguments[0]), _BATCH_LIFE)
    reply: list[Any] = []
    for i in range((len(keys) - 1) // 2):
        hold = str(arguments[5 * i + 1])
        amount, cost, floor, ttl = map(int, arguments[5 * i + 2 : 5 * i + 6])
        book, holds = _read(cells, keys[2 * i + 1], keys[2 * i + 2])
        if holds.pop(f"{amount}:{hold}", None) is not None:
            book["reserved"] -= amount
        book["spent"] = max(book["spent"], floor) + cost
        reply += [book["spent"], book["reserved"]]
        cells.put(keys[2 * i + 1], book, ttl / 1_000)
        cells.put(keys[2 * i + 2], holds, ttl / 1_000)
    return reply


RESERVE: Final = Script("reserve_budget", _RESERVE_LUA, _reserve)
"""Keys: book and holds of each budget. Arguments: the hold's name, how much, milliseconds that it lasts; of
each budget its limit, what is known to be spent, milliseconds that the book lives. Answers 0, or the number
of the first budget without enough; then of each what is spent and what is reserved."""

SETTLE: Final = Script("settle_budget", _SETTLE_LUA, _settle)
"""Keys: the last batch of this process, then book and holds of each entry. Arguments: the batch's number; of
each entry the hold's name, what it held, what it cost, what is known to be spent, milliseconds that the book
lives. Answers nothing where the batch was settled before; else of each what is spent and reserved."""
