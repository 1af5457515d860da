"""The last word on every breaker, for all replicas: who opened it until when, who probes, that it is closed.

Refuses to know what a process makes of a word: `core.agreement` does.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from router_server.core.agreement import Heard, Say, Word
from router_server.state.store import Argument, Cells, Reply, Script, Store, key

_KEPT: Final = 60.0
"""Seconds for which a word can be heard after it has ceased to hold."""

_SAYS: Final = 4
_HEARD: Final = 5

_LUA: Final = f"""
local me = ARGV[1]
local reply = {{}}
for i, name in ipairs(KEYS) do
  local word, lasting, reopened, seen = unpack(ARGV, {_SAYS} * i - 2, {_SAYS} * i + 1)
  local kept = redis.call('HMGET', name, 'word', 'stamp', 'ends', 'by', 'reopened')
  local stamp, ends = tonumber(kept[2] or '0'), tonumber(kept[3] or '0')
  local others = kept[4] ~= me
  if word == 'probing' and stamp > 0 and others then
    if stamp ~= tonumber(seen) or (kept[1] == 'probing' and ends > now) then word = '' end
  end
  if word ~= '' then
    stamp = math.max(now, stamp + 1)
    ends = now + tonumber(lasting)
    kept = {{word, stamp, ends, me, reopened}}
    others = false
    redis.call('HSET', name, 'word', word, 'stamp', stamp, 'ends', ends, 'by', me, 'reopened', reopened)
    redis.call('PEXPIRE', name, tonumber(lasting) + {round(_KEPT * 1_000)})
  end
  reply[#reply + 1] = kept[1] or ''
  reply[#reply + 1] = stamp
  reply[#reply + 1] = math.max(0, ends - now)
  reply[#reply + 1] = (others or stamp == 0) and 0 or 1
  reply[#reply + 1] = tonumber(kept[5] or '0')
end
return reply
"""

_Record = tuple[str, int, int, str, int]
"""The word, its stamp, when it ends, who said it, how often it was opened anew."""


def _local(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    me, reply = str(arguments[0]), list[Any]()
    for i, name in enumerate(keys):
        word, lasting, reopened, seen = arguments[1 + _SAYS * i : 1 + _SAYS * (i + 1)]
        kept: _Record = cells.get(name) or ("", 0, 0, "", 0)
        if word == Word.PROBING and kept[1] and kept[3] != me:
            taken = kept[0] == Word.PROBING and kept[2] > cells.now
            word = Word.NOTHING if kept[1] != seen or taken else word
        if word:
            ends = cells.now + int(lasting)
            kept = (str(word), max(cells.now, kept[1] + 1), ends, me, int(reopened))
            cells.put(name, kept, int(lasting) / 1_000 + _KEPT)
        reply += [kept[0].encode(), kept[1], max(0, kept[2] - cells.now), int(kept[3] == me), kept[4]]
    return reply


EXCHANGE: Final = Script("breakers", _LUA, _local)
"""Keys: one of each target. Arguments: who asks; of each target the word, milliseconds for which it holds,
how often it was opened anew, the stamp last seen. Answers of each target the last word, its stamp,
milliseconds for which it holds, 1 where whoever asks has said it, how often it was opened anew."""


class SharedBoard:
    """The words in a store.

    Args:
        store: what replicas share.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._process = uuid.uuid4().hex

    async def exchange(self, says: Mapping[str, Say]) -> Mapping[str, Heard]:
        """See `BreakerBoard`."""
        arguments: list[Argument] = [self._process]
        for say in says.values():
            arguments += [str(say.word), max(0, round(say.lasting * 1_000)), say.reopened, say.seen]
        reply = await self._store.run(EXCHANGE, [key("breaker", name) for name in says], arguments)
        return {name: _heard(reply[_HEARD * i : _HEARD * (i + 1)]) for i, name in enumerate(says)}


def _heard(part: Sequence[Any]) -> Heard:
    word, stamp, left, mine, reopened = part
    return Heard(Word(word.decode()), int(stamp), int(left) / 1_000, bool(mine), int(reopened))
