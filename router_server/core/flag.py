"""An event that one task waits for at a time.

`asyncio.Event` keeps a queue for any number of waiters, 0.8 KiB, and a stream has three. Refuses to know
what it stands for.
"""

from __future__ import annotations

import asyncio


class Flag:
    """Set and cleared by anybody, waited for by one task at a time."""

    __slots__ = ("_waiter", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let who waits go on, and whoever comes until it is cleared."""
        self.is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Let who comes from now on wait."""
        self.is_set = False

    async def wait(self) -> None:
        """Return once it is set."""
        if self.is_set:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
