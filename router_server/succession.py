"""The assemblies of one running process, one after another.

A new one is built beside the one in service, and takes over in one step of the loop, or not at all. The old
one is closed once its last call has ended, but for what the new one has taken over. Refuses to know where
configurations come from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from router_server.assembled import Assembly
from router_server.config.tree import Config
from router_server.core.handover import Handover, Tenure
from router_server.inheritance import used_by
from router_server.providers import SetupError

Make = Callable[[Config, Assembly | None], Assembly]
"""Builds the assembly of a configuration, to follow another; may raise `SetupError`."""

_log = logging.getLogger(__name__)


class Succession:
    """Begins with the assembly of ``config``.

    Args:
        make: builds assemblies.
        config: what to begin with.

    Attributes:
        current: the assembly in service.
        door: where calls go in.

    Raises:
        SetupError: see `assemble`.
    """

    def __init__(self, make: Make, config: Config) -> None:
        self._make = make
        self._coming: Assembly | None = None
        self._leaving: dict[asyncio.Task[None], Assembly] = {}
        self.current = make(config, None)
        self.current.begin()
        self.door = Handover(self.current.router)

    @property
    def leaving(self) -> int:
        """How many former assemblies still have calls."""
        return len(self._leaving)

    async def prepare(self, config: Config) -> None:
        """Build the next assembly; nothing that is in use changes. `follow` or `abandon` comes next.

        Raises:
            SetupError: a provider lacks something that only the machine can give.
        """
        try:
            self._coming = self._make(config, self.current)
        except SetupError:
            await self.abandon()
            raise

    def follow(self) -> None:
        """Put the assembly that was prepared into service."""
        assert self._coming is not None, "it was prepared"  # noqa: S101 - narrows the type
        before, self.current, self._coming = self.current, self._coming, None
        ending = self.door.hand_over(self.current.router)
        self.current.begin()
        task = asyncio.create_task(self._see_off(before, ending), name="former configuration")
        self._leaving[task] = before
        task.add_done_callback(self._gone)

    async def abandon(self) -> None:
        """Close what only the assembly that was prepared would have used."""
        self._coming = None
        await self._close_all_but(self._living())

    async def close(self) -> None:
        """Close everything; no call runs any more."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        if leaving:
            await asyncio.wait(leaving)
        for assembly in (*leaving.values(), self.current):
            await assembly.close()

    async def _see_off(self, assembly: Assembly, ending: Tenure) -> None:
        await ending.vacated()
        await assembly.copies_ended()
        await self._close_all_but([one for one in self._living() if one is not assembly])

    async def _close_all_but(self, living: Sequence[Assembly]) -> None:
        upstreams = [upstream for one in living for upstream in one.upstreams.values()]
        await self.current.providers.close_all_but(used_by(upstreams))

    def _living(self) -> list[Assembly]:
        coming = [] if self._coming is None else [self._coming]
        return [self.current, *coming, *self._leaving.values()]

    def _gone(self, task: asyncio.Task[None]) -> None:
        del self._leaving[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("What a former configuration used could not be closed in order.", exc_info=error)
