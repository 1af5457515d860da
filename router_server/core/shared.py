"""What replicas share, as the core sees it: values by key that end by themselves, and no waiting for them.

A leaf: the shape alone, so that features are written against it and run with a server of shared state or in
memory. Refuses to know which of the two it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

CALL_PATIENCE = 0.05
"""Seconds that one call may wait for shared state, however often it asks; then it goes on without."""


class UnreachableError(Exception):
    """The shared state is gone, or too slow to wait for; whoever asked does without it now."""


class SharedValues(Protocol):
    """Values by key. Times to live are seconds, and everything has one.

    Every method raises `UnreachableError` where the state is gone or does not answer in time; what was asked
    may then have been done all the same. `degraded` tells without asking.
    """

    @property
    def degraded(self) -> bool:
        """Tell whether asking is pointless just now."""

    async def get(self, key: str) -> bytes | None:
        """Return a value, or None where there is none."""

    async def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None where there is none."""

    async def put(self, key: str, value: bytes, ttl: float, *, only_if_absent: bool = False) -> bool:
        """Set a value; tell whether it was set."""

    async def drop(self, *keys: str) -> int:
        """Remove values of whatever sort; return how many there were."""

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a whole number, which begins at 0 and lives ``ttl`` from now on; return the sum."""

    async def fields(self, key: str) -> Mapping[str, bytes]:
        """Return the fields of a record, none where there is no such record."""

    async def put_fields(self, key: str, fields: Mapping[str, bytes], ttl: float) -> None:
        """Set fields of a record, beside those it has; the whole record lives ``ttl`` from now on."""


@dataclass(slots=True)
class Patience:
    """How long one call may still wait for shared state; seconds."""

    left: float = field(default_factory=lambda: CALL_PATIENCE)


_of_this_call: ContextVar[Patience | None] = ContextVar("patience", default=None)


def be_patient_once() -> None:
    """Let this task, and those it starts from now on, wait `CALL_PATIENCE` in all and not each time."""
    _of_this_call.set(Patience())


@contextmanager
def patient_for(seconds: float) -> Iterator[None]:
    """Wait so long in all instead: for people's commands, which no call waits for."""
    token = _of_this_call.set(Patience(seconds))
    try:
        yield
    finally:
        _of_this_call.reset(token)


def patience() -> Patience:
    """Return what is left of the call's patience, or a new one where no call is being answered."""
    return _of_this_call.get() or Patience()


@dataclass(frozen=True, slots=True)
class SharedSnapshot:
    """The shared state at one moment.

    Attributes:
        degraded: each process is on its own.
        asked: how often it was asked, by what was asked and what came of it: ``ok``, ``timeout``, ``error``,
            or ``skipped`` while it is degraded.
    """

    degraded: bool
    asked: Mapping[tuple[str, str], int] = field(default_factory=dict)
