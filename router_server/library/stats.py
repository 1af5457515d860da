"""What became of the calls so far: counted by an observer, read at any time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from router_server.core.errors import Outcome
from router_server.core.observer import AttemptRecord, CallRecord


@dataclass(frozen=True, slots=True)
class TargetStats:
    """One target's attempts.

    Attributes:
        healthy: whether calls go there by choice now.
        attempts: how often it was asked.
        succeeded: how many of these it answered.
        mean_seconds: of those that it answered, from the first step to the last; None where there are none.
        inflight: attempts that run now.
    """

    healthy: bool = True
    attempts: int = 0
    succeeded: int = 0
    mean_seconds: float | None = None
    inflight: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """All calls since the router was made.

    Attributes:
        calls: how many have ended.
        succeeded: how many of these were answered.
        failed: how many were not; those that their caller gave up are neither.
        input_tokens: of all answers.
        output_tokens: of all answers.
        cost_usd: of all attempts whose price is known.
        targets: by name; every configured one.
    """

    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    targets: Mapping[str, TargetStats] = field(default_factory=dict)

    @property
    def success_rate(self) -> float:
        """The share of answered and failed calls that was answered; 1 where there was none."""
        return self.succeeded / ended if (ended := self.succeeded + self.failed) else 1.0

    @property
    def healthy_targets(self) -> tuple[str, ...]:
        """The targets to which calls go by choice now."""
        return tuple(name for name, target in self.targets.items() if target.healthy)


class Tally:
    """Counts what `Endings` tells it."""

    def __init__(self) -> None:
        self._stats = Stats()
        self._targets: dict[str, TargetStats] = {}

    def stats(self, now: Mapping[str, TargetStats]) -> Stats:
        """Return what was counted; ``now`` says how each target is."""
        targets = {
            name: replace(self._targets.get(name, TargetStats()), healthy=one.healthy, inflight=one.inflight)
            for name, one in now.items()
        }
        return replace(self._stats, targets=targets)

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        """Count it."""
        if isinstance(record, AttemptRecord):
            self._count_attempt(record)
            return
        before, usage = self._stats, record.usage
        failed = record.error is not None and not record.cancelled
        self._stats = replace(
            before,
            calls=before.calls + 1,
            succeeded=before.succeeded + (record.error is None and not record.cancelled),
            failed=before.failed + failed,
            input_tokens=before.input_tokens + (usage.input_tokens if usage else 0),
            output_tokens=before.output_tokens + (usage.output_tokens if usage else 0),
            cost_usd=before.cost_usd + (record.cost_nano_usd or 0) / 1e9,
        )

    def _count_attempt(self, record: AttemptRecord) -> None:
        before = self._targets.get(record.start.target, TargetStats())
        well = record.outcome is Outcome.OK
        count = before.succeeded + well
        mean = before.mean_seconds
        if well:
            mean = record.duration if mean is None else mean + (record.duration - mean) / count
        self._targets[record.start.target] = replace(
            before, attempts=before.attempts + 1, succeeded=count, mean_seconds=mean
        )
