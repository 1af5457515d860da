"""One process's access to what replicas share: which store, how it is, and what runs for it meanwhile.

Refuses to know any feature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from router_server.core.shared import SharedSnapshot
from router_server.state.memory import MemoryStore
from router_server.state.presence import Presence
from router_server.state.store import Store

if TYPE_CHECKING:
    from router_server.state.remote import RedisStore


class State:
    """What features keep their shared values in.

    Args:
        remote: the store that replicas share, or None where nothing is shared.

    Attributes:
        shared: where values belong: ``remote``, or else the memory.
        local: the memory of this process, for what has to go on while ``shared`` is gone.
    """

    def __init__(self, remote: RedisStore | None) -> None:
        self.local = MemoryStore()
        self.shared: Store = self.local if remote is None else remote
        self._remote = remote
        self._presence = Presence(self.shared)

    @property
    def distributed(self) -> bool:
        """Tell whether replicas share anything."""
        return self._remote is not None

    @property
    def degraded(self) -> bool:
        """Tell whether this process is on its own although it should not be."""
        return self.shared.degraded

    @property
    def processes(self) -> int:
        """How many processes share the state, as far as this one knows."""
        return self._presence.processes

    def snapshot(self) -> SharedSnapshot | None:
        """Return how it is, or None where nothing is shared."""
        return None if self._remote is None else self._remote.snapshot

    async def connect(self) -> None:
        """Ask the shared store once; where it does not answer, this process begins on its own."""
        if self._remote is not None and await self._remote.connect():
            await self._presence.say()

    async def run(self) -> None:
        """Do what has to be done in the background, until cancelled."""
        if self._remote is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._remote.run_probes(), name="state probes")
            group.create_task(self._presence.run(), name="state presence")

    async def close(self) -> None:
        """Say goodbye and close every connection."""
        if self._remote is not None:
            await self._presence.leave()
            await self._remote.close()


def open_state(url: str | None, changed: Callable[[], None] = lambda: None) -> State:
    """Return the state behind ``url``, or one in memory where that is None. Opens no connection yet.

    Args:
        url: see `RedisStore`.
        changed: called whenever `State.degraded` has changed.
    """
    if url is None:
        return State(None)
    from router_server.state.remote import RedisStore  # noqa: PLC0415 - redis takes 0.2 s to load

    return State(RedisStore(url, changed))
