"""The state of one process: what Redis does, in a dictionary.

Used where no Redis is configured, and as what a process falls back on while Redis is gone. Refuses to share
anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_server.state.store import Argument, Reply, Script

_FEW = 1024
"""Values below which nobody looks for those that have ended."""


class MemoryStore:
    """Values by key, in this process.

    Args:
        clock: seconds since the epoch.
    """

    degraded = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._values: dict[str, tuple[Any, float]] = {}
        self._sweep_at = _FEW

    async def get(self, key: str) -> bytes | None:
        """Return a value, or None where there is none."""
        found: bytes | None = self._cells().get(key)
        return found

    async def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None where there is none."""
        cells = self._cells()
        return [cells.get(key) for key in keys]

    async def put(self, key: str, value: bytes, ttl: float, *, only_if_absent: bool = False) -> bool:
        """Set a value; tell whether it was set."""
        cells = self._cells()
        if only_if_absent and cells.get(key) is not None:
            return False
        cells.put(key, value, ttl)
        return True

    async def drop(self, *keys: str) -> int:
        """Remove values; return how many there were."""
        cells = self._cells()
        there = [key for key in dict.fromkeys(keys) if cells.get(key) is not None]
        for key in there:
            cells.drop(key)
        return len(there)

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a whole number, which begins at 0 and lives ``ttl`` from now on; return the sum."""
        cells = self._cells()
        total = int(cells.get(key) or b"0") + amount
        cells.put(key, b"%d" % total, ttl)
        return total

    async def fields(self, key: str) -> Mapping[str, bytes]:
        """Return the fields of a record."""
        return dict(self._cells().get(key) or {})

    async def put_fields(self, key: str, fields: Mapping[str, bytes], ttl: float) -> None:
        """Set fields of a record, beside those it has; the whole record lives ``ttl`` from now on."""
        cells = self._cells()
        cells.put(key, {**(cells.get(key) or {}), **fields}, ttl)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Do one step."""
        return self.run_now(script, keys, arguments)

    def run_now(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Do one step, where nothing may be awaited."""
        return script.local(self._cells(), keys, arguments)

    async def close(self) -> None:
        """Nothing is held."""

    def __len__(self) -> int:
        return len(self._values)

    def _cells(self) -> _Cells:
        now = self._clock()
        if len(self._values) >= self._sweep_at:
            self._values = {key: kept for key, kept in self._values.items() if kept[1] > now}
            self._sweep_at = max(_FEW, 2 * len(self._values))
        return _Cells(self._values, now)


class _Cells:
    """The values at one moment."""

    __slots__ = ("_now", "_values")

    def __init__(self, values: dict[str, tuple[Any, float]], now: float) -> None:
        self._values = values
        self._now = now

    @property
    def now(self) -> int:
        return int(self._now * 1_000)

    def get(self, key: str) -> Any | None:
        kept = self._values.get(key)
        return kept[0] if kept is not None and kept[1] > self._now else None

    def put(self, key: str, value: Any, ttl: float) -> None:
        self._values[key] = (value, self._now + ttl)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)
