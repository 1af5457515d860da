"""What both stores offer beyond `core.shared`: atomic steps of several reads and writes.

A step is written twice, in Lua for Redis and in Python for memory, side by side in one `Script`; the tests
hold the two against one model. Refuses to know any feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from router_server.core.shared import SharedValues

PREFIX: Final = "modelrouter"

Argument = str | int | bytes
Reply = list[int | bytes]

_PRELUDE: Final = """\
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
"""Milliseconds of the server's clock, so that replicas whose clocks differ agree. Whole, and few enough
digits for Lua's tostring, which keeps fourteen."""


def key(feature: str, *parts: str) -> str:
    """Return the name of a key.

    All keys of a feature have one hash tag, so that a step may touch several of them on a cluster too.
    """
    return ":".join((f"{PREFIX}:{{{feature}}}", *parts))


class Cells(Protocol):
    """The memory as a step sees it: any Python values, of which a step keeps no reference."""

    @property
    def now(self) -> int:
        """Milliseconds since the epoch."""

    def get(self, key: str) -> Any | None:
        """Return a value, or None where there is none."""

    def put(self, key: str, value: Any, ttl: float) -> None:
        """Set a value for ``ttl`` seconds."""

    def drop(self, key: str) -> None:
        """Remove a value, if there is one."""


@dataclass(frozen=True, slots=True)
class Script:
    """One atomic step.

    Attributes:
        name: in metrics.
        lua: its body for Redis, with ``now`` in milliseconds and ``KEYS`` and ``ARGV``; it returns an array
            of whole numbers and strings, and gives whatever it writes a time to live.
        local: the same in Python: what it sees, keys, arguments.
    """

    name: str
    lua: str
    local: Callable[[Cells, Sequence[str], Sequence[Argument]], Reply]
    source: str = field(init=False, repr=False)
    sha: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        source = _PRELUDE + self.lua
        object.__setattr__(self, "source", source)
        # Redis names scripts by it; nothing is protected.
        object.__setattr__(self, "sha", hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Store(SharedValues, Protocol):
    """Values by key, and atomic steps."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Do one step.

        Raises:
            UnreachableError: see `SharedValues`.
        """

    async def close(self) -> None:
        """Let go of what is held."""
