"""Where answers are kept for a while, and in memory, what goes first when there is no room.

Refuses to know what they say.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol


class Shelf(Protocol):
    """Where answers are kept; each method may raise `UnreachableError`."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""

    async def put(self, key: str, value: bytes, ttl: float) -> Any:
        """Keep ``value`` for ``ttl`` seconds."""


class MemoryShelf:
    """Keeps answers in this process; the one that was used longest ago goes first.

    Args:
        max_bytes: of all answers together.
        clock: monotonic seconds.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return self._bytes

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""
        value, ends = self._kept.get(key, (None, 0.0))
        if value is None or ends <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, unless others need the room."""
        self._drop(key)
        self._kept[key] = value, self._clock() + ttl
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        value, _ends = self._kept.pop(key, (b"", 0.0))
        self._bytes -= len(value)
