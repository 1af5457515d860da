from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.deadline import Deadline, Timer, deadline_of, share

SECONDS = st.floats(0.001, 10_000)


@pytest.mark.parametrize(("timeout", "left"), [(10.0, 9.95), (0.5, 0.475), (1.0, 0.95), (0.1, 0.095)])
def test_the_caller_keeps_a_margin_of_50_ms_or_5_per_cent(timeout: float, left: float) -> None:
    assert deadline_of(100.0, timeout, 120.0).at == pytest.approx(100.0 + left)


def test_without_a_deadline_the_default_counts() -> None:
    assert deadline_of(5.0, None, 120.0) == Deadline(125.0)


@given(configured=SECONDS, remaining=SECONDS, wished=st.none() | SECONDS, others=st.booleans())
def test_no_timer_outlives_what_it_is_cut_from(
    configured: float, remaining: float, wished: float | None, *, others: bool
) -> None:
    limit = share(configured, remaining, others_left=others, wished=wished)
    assert limit <= min(configured, remaining)
    assert not others or limit <= remaining / 2
    assert wished is None or limit <= wished
    allowed = [configured, remaining / 2 if others else remaining, wished]
    assert limit in allowed, "as long as it may be"


@pytest.mark.parametrize(
    ("timer", "ran", "blames"),
    [
        (Timer(15, 15), 15, True),
        (Timer(3, 15), 3, False),
        (Timer(6, 15), 6, True),
        (Timer(2, 3), 2, False),
        (Timer(3, 3), 3, True),
        (Timer(5, 15), 5, True),
    ],
)
def test_a_timer_cut_short_is_neutral_below_a_fair_trial(timer: Timer, ran: float, blames: bool) -> None:
    assert timer.blames_upstream(ran) is blames


def test_what_remains_is_never_negative() -> None:
    deadline = Deadline(10.0)
    assert (deadline.remaining(4.0), deadline.remaining(12.0)) == (6.0, 0.0)
    assert (deadline.spent(9.9), deadline.spent(10.0)) == (False, True)
