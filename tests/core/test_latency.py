from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.latency import Latencies

TIMES = st.lists(st.floats(0, 100, allow_nan=False), min_size=20, max_size=120)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(times=TIMES, share=st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_the_least_time_that_so_many_answers_kept(times: list[float], share: float) -> None:
    known = Latencies(Clock())
    for seconds in times:
        known.add(seconds)
    found = known.quantile(share)
    assert found is not None
    assert found in times
    assert sum(t <= found for t in times) >= share * len(times)
    assert sum(t < found for t in times) < share * len(times)


@given(times=TIMES, pauses=st.lists(st.floats(0, 5), min_size=120, max_size=120))
def test_only_the_last_ones_within_the_window_count(times: list[float], pauses: list[float]) -> None:
    clock = Clock()
    known = Latencies(clock, window=60.0, most=50)
    arrived: list[tuple[float, float]] = []
    for seconds, pause in zip(times, pauses, strict=False):
        clock.now += pause
        known.add(seconds)
        arrived.append((clock.now, seconds))
    left = sorted(seconds for at, seconds in arrived[-50:] if at >= clock.now - 60.0)
    expected = left[math.ceil(len(left) / 2) - 1] if len(left) >= 20 else None
    assert known.quantile(0.5) == expected


@pytest.mark.parametrize(("share", "fewest"), [(0.5, 20), (0.9, 20), (0.95, 20), (0.99, 100)])
def test_nothing_is_said_before_enough_is_known(share: float, fewest: int) -> None:
    known = Latencies(Clock())
    for _ in range(fewest - 1):
        known.add(1.0)
    assert known.quantile(share) is None
    known.add(1.0)
    assert known.quantile(share) == 1.0


def test_what_is_old_is_forgotten_although_nothing_new_comes() -> None:
    clock = Clock()
    known = Latencies(clock, window=60.0)
    for _ in range(50):
        known.add(1.0)
    clock.now = 60.0
    assert known.quantile(0.95) == 1.0
    clock.now = 60.1
    assert known.quantile(0.95) is None
