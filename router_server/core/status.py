"""What a target looks like from outside at one moment: for gauges, admin and health.

Plain values, filled by whoever owns the targets. Refuses to know who reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from router_server.core.engine import EngineStatus
from router_server.core.provider import EngineLoad


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What came of one active check.

    Attributes:
        well: True, False, or None where nothing is known.
        at: when, seconds since the epoch.
        took: how long it took, seconds.
        error: why it is unwell, a short word of our own; empty where it is not.
        asked: it was made out of turn, because of what one process saw.
        by: which process made it.
    """

    well: bool | None
    at: float
    took: float
    error: str = ""
    asked: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """One target, or one endpoint of it, at one moment.

    Attributes:
        target: its name in the configuration.
        provider: the name of its provider.
        inflight: attempts that hold a permit.
        queued: attempts that wait for one.
        breaker: ``closed``, ``half_open`` or ``open``.
        cooling: seconds for which it is still left alone after a rate limit; 0 where it is not.
        healthy: what the last active check said; None where none has answered.
        check_took: seconds that it took; None where there was none.
        concurrency_limit: attempts of its provider that may hold a permit at once; 0 where that is not told.
        endpoint: which of the provider's endpoints this is; empty where there is one only.
        engine_up: whether its engine answered when last asked for its load; None where it was not.
        engine: its engine's last word on its load, or None.
        process: how its provider's engine is, where the router runs one.
    """

    target: str
    provider: str
    inflight: int = 0
    queued: int = 0
    breaker: str = "closed"
    cooling: float = 0.0
    healthy: bool | None = None
    check_took: float | None = None
    concurrency_limit: int = 0
    endpoint: str = ""
    engine_up: bool | None = None
    engine: EngineLoad | None = None
    process: EngineStatus | None = None

    @property
    def name(self) -> str:
        """What tells it from every other: of several endpoints, each has its own."""
        return f"{self.target}@{self.endpoint}" if self.endpoint else self.target
