"""How many processes share the state, so that each knows its part of a limit when it is on its own.

Approximate: a process counts for `_LEASE` after its last word, and the number is the last one heard while the
state answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Final

from router_server.core.shared import UnreachableError
from router_server.state.store import Argument, Cells, Reply, Script, Store, key

_EVERY: Final = 5.0
_LEASE: Final = 15.0
"""Seconds: a process is gone once it has missed three words."""

_LUA: Final = """
local lease = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lease)
if ARGV[3] == 'here' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], lease)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return {redis.call('ZCARD', KEYS[1])}
"""


def _local(cells: Cells, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
    process, lease, what = arguments
    seen: dict[Argument, int] = cells.get(keys[0]) or {}
    seen = {one: at for one, at in seen.items() if at > cells.now - int(lease) and one != process}
    if what == "here":
        seen[process] = cells.now
    cells.put(keys[0], seen, int(lease) / 1_000)
    return [len(seen)]


_SAY: Final = Script("presence", _LUA, _local)
_KEY: Final = key("state", "processes")


class Presence:
    """This process among those that share a store.

    Attributes:
        processes: how many there are, this one included.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = uuid.uuid4().hex
        self.processes = 1

    async def run(self) -> None:
        """Say that this process is there, until cancelled."""
        while True:
            await self.say()
            await asyncio.sleep(_EVERY)

    async def say(self) -> None:
        """Say it once, and count."""
        with contextlib.suppress(UnreachableError):
            self.processes = max(1, await self._tell("here"))

    async def leave(self) -> None:
        """Say that this process goes."""
        with contextlib.suppress(UnreachableError):
            await self._tell("gone")

    async def _tell(self, what: str) -> int:
        (count,) = await self._store.run(_SAY, (_KEY,), (self._name, int(_LEASE * 1_000), what))
        return int(count)
