"""What docs/hedging.md and docs/adaptive-concurrency.md claim, on a few minutes of the simulated traffic."""

from __future__ import annotations

from bench import adaptive, hedging
from bench.simulated import Measured
from router_server.core.hedge import Hedging, Percentile
from router_server.core.limiter import Limits
from tests.clock import run_in_virtual_time


def tail(hedged: Hedging | None) -> tuple[Measured, float]:
    return run_in_virtual_time(hedging.run(hedging.slow_tail, hedged, seconds=300.0))["all"]


def test_hedging_halves_the_slowest_for_a_twentieth_more_requests() -> None:
    plain, once = tail(None)
    hedged, requests = tail(Hedging(Percentile.P95, 0.05))
    assert once == 1.0
    assert 1.03 < requests <= 1.05
    assert hedged.percentile(0.99) < plain.percentile(0.99) / 2
    assert hedged.failed == plain.failed == 0


def spilled(limits: Limits, least: int | None) -> adaptive.Outcome:
    return run_in_virtual_time(adaptive.run(adaptive.refusing, limits, least, seconds=300.0))


def test_an_adaptive_limit_is_refused_less_and_keeps_more_calls_at_home() -> None:
    fixed, moving = spilled(Limits(64), None), spilled(Limits(64), 4)
    assert moving.refused < 0.75 * fixed.refused
    assert moving.spilled < 0.75 * fixed.spilled
    assert all(measured.failed == 0 for measured in moving.groups.values())


def test_an_adaptive_limit_notices_a_queue_that_refuses_nobody() -> None:
    runs = [
        run_in_virtual_time(adaptive.run(adaptive.queueing, Limits(64), least, seconds=1_800.0))
        for least in (None, 4)
    ]
    fixed, moving = (run.groups["long"].percentile(0.99) for run in runs)
    assert moving < 0.9 * fixed
    assert runs[1].spilled > runs[0].spilled == 0
