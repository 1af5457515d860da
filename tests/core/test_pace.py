from __future__ import annotations

import random

import pytest

from router_server.core.pace import Pace

PLACES = 20


class Traffic:
    """First tokens that come ten seconds apart, in rounds of twenty."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = Pace(lambda: self.now)

    def rounds(self, count: int, *kinds: tuple[int, float], apart: float = 10.0) -> list[bool]:
        """Tell of each round whether it was late; ``kinds`` are prompts' sizes and times, in turn."""
        late = []
        for number in range(count * PLACES):
            self.now += apart
            size, seconds = kinds[number % len(kinds)]
            if self.pace.slow(size, seconds, PLACES):
                late.append(True)
            elif number % PLACES == PLACES - 1:
                late.append(False)
        return late


def test_nothing_is_late_before_it_is_known_what_is_usual() -> None:
    traffic = Traffic()
    assert not any(traffic.rounds(1, (100, 9.0)))


@pytest.mark.parametrize(("seconds", "late"), [(0.9, False), (1.01, True), (30.0, True)])
def test_twice_the_usual_is_late(seconds: float, late: bool) -> None:
    traffic = Traffic()
    traffic.rounds(10, (100, 0.5))
    assert traffic.rounds(1, (100, seconds)) == [late]


@pytest.mark.parametrize(("seconds", "late"), [(0.09, False), (0.12, True)])
def test_what_nobody_notices_is_not_late(seconds: float, late: bool) -> None:
    traffic = Traffic()
    traffic.rounds(10, (100, 0.01))
    assert traffic.rounds(1, (100, seconds)) == [late]


@pytest.mark.parametrize(("slow", "late"), [(9, False), (10, False), (11, True)])
def test_a_round_is_late_where_most_of_it_is(slow: int, late: bool) -> None:
    traffic = Traffic()
    traffic.rounds(10, (100, 0.5))
    kinds = [(100, 5.0)] * slow + [(100, 0.5)] * (PLACES - slow)
    assert traffic.rounds(1, *kinds) == [late]


@pytest.mark.parametrize(("places", "ends_after"), [(4, 20), (20, 20), (40, 40)])
def test_a_round_is_one_token_for_each_place_and_twenty_at_least(places: int, ends_after: int) -> None:
    traffic = Traffic()
    traffic.rounds(5, (100, 0.5))
    pace = Pace(lambda: 0.0)
    pace._usual = traffic.pace._usual
    late = [pace.slow(100, 5.0, places) for _ in range(80)]
    assert next(number for number, is_late in enumerate(late, 1) if is_late) == ends_after


def test_long_prompts_are_no_overload() -> None:
    traffic = Traffic()
    traffic.rounds(60, (100, 0.2), (8_000, 4.0))
    assert not any(traffic.rounds(5, (8_000, 4.0)))
    assert not any(traffic.rounds(5, (100, 0.2)))
    assert traffic.rounds(1, (8_000, 9.0), (100, 0.9)) == [True]


def test_times_that_spread_widely_are_no_overload() -> None:
    rng = random.Random(7)  # noqa: S311 - the same every time
    traffic = Traffic()
    late = traffic.rounds(400, *((100, 0.5 * rng.lognormvariate(0, 1)) for _ in range(8_000)))
    assert sum(late) <= 4


def test_the_usual_is_that_of_an_hour_whatever_the_rate() -> None:
    traffic = Traffic()
    traffic.rounds(20, (100, 0.5))
    assert all(traffic.rounds(50, (100, 2.0), apart=0.1)), "a hundred seconds at ten a second change nothing"
    traffic.rounds(30, (100, 2.0))
    assert traffic.rounds(1, (100, 2.0)) == [False], "an hour later that is usual"
