"""An observer of ends alone: a function is given the record of each attempt and of each call.

Refuses to know what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from router_server.core.observer import AttemptRecord, AttemptStart, CallRecord, CallStart, Failover

_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Endings:
    """An `Observer` that gives every record to ``ended``, and does nothing else."""

    ended: Callable[[CallRecord | AttemptRecord], None]

    def call(self, _start: CallStart) -> Endings:
        """See a call."""
        return self

    def attempt(self, _start: AttemptStart) -> Endings:
        """See an attempt."""
        return self

    @property
    def headers(self) -> Mapping[str, str]:
        """None."""
        return _NO_HEADERS

    def failed_over(self, failover: Failover) -> None:
        """See a failover."""

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """See a breaker."""
