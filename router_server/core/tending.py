"""One task for each thing that is to be looked after, where things come and go while the others are.

Refuses to know what is done for a thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Tending(Generic[T]):
    """Looks after things, by identity or whatever else makes two of them equal.

    Args:
        work: what is done for one, until cancelled.
        name: of its task.
    """

    def __init__(self, work: Callable[[T], Coroutine[Any, Any, None]], name: Callable[[T], str]) -> None:
        self._work = work
        self._name = name
        self._wanted: dict[T, None] = {}
        self._changed = asyncio.Event()

    def change(self, things: Iterable[T]) -> None:
        """Look after ``things`` from now on: what goes on is not disturbed, what is gone is left alone."""
        self._wanted = dict.fromkeys(things)
        self._changed.set()

    async def run(self) -> None:
        """Look after them until cancelled."""
        running: dict[T, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for thing in [one for one in running if one not in self._wanted]:
                    running.pop(thing).cancel()
                for thing in self._wanted:
                    if thing not in running:
                        running[thing] = group.create_task(self._work(thing), name=self._name(thing))
                await self._changed.wait()
