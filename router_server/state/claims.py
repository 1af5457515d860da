"""Claims of answers, beside the answers themselves, in a store. Refuses to know who makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from router_server.core.claim import Taken
from router_server.state.store import Argument, Cells, Reply, Script, Store

_TAKE_LUA: Final = """
local answer = redis.call('GET', KEYS[1])
if answer then return {'answer', answer} end
local claim = redis.call('GET', KEYS[2])
if claim and claim ~= ARGV[1] then return {'claim', claim} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return {}
"""

_RELEASE_LUA: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {}
"""


def _take(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    answer, claim = map(cells.get, keys)
    if answer is not None:
        return [b"answer", answer]
    mine, lasting = arguments
    if claim not in {None, mine}:
        return [b"claim", claim]
    cells.put(keys[1], mine, int(lasting) / 1_000)
    return []


def _release(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    if cells.get(keys[0]) == arguments[0]:
        cells.drop(keys[0])
    return []


TAKE: Final = Script("take_claim", _TAKE_LUA, _take)
"""Keys: of the answer, of the claim. Arguments: the claim, its milliseconds. Answers nothing where it is
made, or else what is there, and its value. One step: between two, an answer may be kept and its claim end."""

RELEASE: Final = Script("release_claim", _RELEASE_LUA, _release)
"""Key: of the claim. Argument: the claim."""


class SharedClaims:
    """Keeps them in ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, key: str, question: str, owner: str, ttl: float) -> Taken | None:
        """See `Claims`."""
        reply = await self._store.run(
            TAKE, (key, _claim(key)), (_value(question, owner), max(1, round(ttl * 1_000)))
        )
        match reply:
            case [b"answer", bytes(answer)]:
                return Taken(answer=answer)
            case [b"claim", bytes(value)]:
                return Taken(question=value.decode().partition(" ")[0])
            case _:
                return None

    async def release(self, key: str, question: str, owner: str) -> None:
        """See `Claims`."""
        await self._store.run(RELEASE, (_claim(key),), (_value(question, owner),))


def _claim(key: str) -> str:
    return f"{key}:claim"


def _value(question: str, owner: str) -> bytes:
    return f"{question} {owner}".encode()
