"""Hedging: when a call asks a second target although the first has not failed, and how often calls may.

Pure. As in "The Tail at Scale" (Dean and Barroso, CACM 2013): the second request is sent once the first has
been outstanding for longer than the 95th percentile of its kind, so that it costs about 5 % more and takes
the slowest answers away. That share holds only while the target is as it was, so a budget holds it always.
Refuses to send anything.
"""

from __future__ import annotations

from enum import StrEnum

from router_server.core.latency import Latencies

HEDGE_LOST = "hedge_lost"
"""The reason of an attempt that was cancelled because another answered first."""

_BURST = 10.0
"""Hedges that may be saved up: a hiccup of a second is covered, an outage of a minute is not paid twice."""

_ROUNDING = 1e-9


class Percentile(StrEnum):
    """A percentile of a target's own answer times."""

    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"

    @property
    def share(self) -> float:
        """The share of the answers that are quicker."""
        return int(self.value[1:]) / 100


class Budget:
    """A token bucket: each call puts ``max_extra`` in, each hedge takes 1 out.

    It begins empty, so at no time have there been more hedges than ``max_extra`` of the calls; and of the
    calls since any moment no more than that and ten.
    """

    def __init__(self, max_extra: float) -> None:
        self._max_extra = max_extra
        self._tokens = 0.0

    @property
    def allows(self) -> bool:
        """Tell whether a hedge may be sent."""
        return self._tokens >= 1 - _ROUNDING

    def called(self) -> None:
        """A call came."""
        self._tokens = min(_BURST, self._tokens + self._max_extra)

    def spend(self) -> None:
        """A hedge was sent."""
        self._tokens -= 1


class Hedging:
    """The hedging of one route.

    Args:
        after: how long the first target is waited for: a percentile of its own times to answer (to the
            first token of a stream), or seconds.
        max_extra: hedges as a share of the route's calls, above 0 and at most 1.
    """

    def __init__(self, after: Percentile | float = Percentile.P95, max_extra: float = 0.05) -> None:
        self.budget = Budget(max_extra)
        self._after = after

    def patience(self, known: Latencies) -> float | None:
        """Return the seconds after which a second target is asked, or None: too little is known."""
        return known.quantile(self._after.share) if isinstance(self._after, Percentile) else self._after
