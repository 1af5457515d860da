from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router_server.core.breaker import Breaker, BreakerSettings, BreakerState, Pass


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    settings: BreakerSettings = field(default_factory=BreakerSettings)
    clock: Clock = field(default_factory=Clock)
    changes: list[str] = field(default_factory=list)
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker(
            self.settings,
            self.clock,
            on_change=lambda before, after: self.changes.append(f"{before}>{after}"),
        )

    def enter(self) -> Pass:
        leave = self.breaker.enter()
        assert leave is not None
        return leave

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failure(self.enter())

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.success(self.enter())

    @property
    def state(self) -> str:
        return str(self.breaker.state)


def test_consecutive_failures_open_it() -> None:
    bench = Bench()
    bench.fail(4)
    bench.succeed()
    bench.fail(4)
    assert bench.state == "closed"
    bench.fail()
    assert bench.state == "open"
    assert bench.breaker.enter() is None
    assert bench.breaker.ready_in == 10.0


def test_a_rate_of_failures_opens_it_once_there_are_enough_calls() -> None:
    bench = Bench(BreakerSettings(failure_threshold=1000))
    for _ in range(9):
        bench.succeed()
        bench.fail()
    bench.succeed()
    assert bench.state == "closed"
    bench.fail()
    assert bench.state == "open", "10 of 20"


def test_old_failures_leave_the_window() -> None:
    bench = Bench(BreakerSettings(failure_threshold=1000))
    bench.fail(19)
    bench.clock.now = 40.0
    bench.succeed(11)
    bench.fail(9)
    assert bench.state == "closed", "9 of 20 in the window"


def test_half_open_lets_one_probe_through_and_closes_after_two_successes() -> None:
    bench = Bench()
    bench.fail(5)
    bench.clock.now = 9.99
    assert not bench.breaker.admits
    bench.clock.now = 10.0
    probe = bench.enter()
    assert bench.state == "half_open"
    assert bench.breaker.enter() is None
    bench.breaker.success(probe)
    assert bench.state == "half_open"
    bench.succeed()
    assert bench.state == "closed"
    assert bench.changes == ["closed>open", "open>half_open", "half_open>closed"]


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_limit() -> None:
    bench = Bench()
    bench.fail(5)
    periods = [bench.breaker.ready_in]
    for _ in range(3):
        bench.clock.now += bench.breaker.ready_in
        bench.fail()
        periods.append(bench.breaker.ready_in)
    assert periods == [10.0, 20.0, 20.0, 20.0]
    bench.clock.now += 20.0
    bench.succeed(2)
    bench.fail(5)
    assert bench.breaker.ready_in == 10.0, "a recovery forgets"


def test_a_neutral_result_gives_the_probe_back() -> None:
    bench = Bench()
    bench.fail(5)
    bench.clock.now = 10.0
    bench.breaker.neutral(bench.enter())
    assert bench.breaker.admits
    assert bench.state == "half_open"


def test_results_of_calls_that_began_in_another_state_count_nothing() -> None:
    bench = Bench()
    early = [bench.enter() for _ in range(10)]
    bench.fail(5)
    for leave in early[:4]:
        bench.breaker.success(leave)
    assert bench.state == "open"
    bench.clock.now = 10.0
    probe = bench.enter()
    for leave in early[4:]:
        bench.breaker.failure(leave)
    assert bench.state == "half_open"
    bench.breaker.success(probe)
    assert bench.breaker.admits


def test_a_forced_call_counts_nothing() -> None:
    bench = Bench()
    bench.fail(5)
    forced = bench.breaker.enter(force=True)
    assert forced is not None
    bench.breaker.failure(forced)
    bench.breaker.success(forced)
    assert bench.state == "open"
    assert bench.breaker.ready_in == 10.0


def test_trip_and_checks() -> None:
    bench = Bench()
    bench.breaker.trip()
    assert bench.state == "open"
    bench.breaker.check_passed()
    assert bench.state == "half_open"
    bench.succeed(2)
    for _ in range(5):
        bench.breaker.check_failed()
    assert bench.state == "open"
    bench.breaker.check_failed()
    bench.breaker.trip()
    assert bench.breaker.ready_in == 10.0, "an open breaker does not reopen"


def test_jitter_stretches_the_open_period() -> None:
    clock = Clock()
    breaker = Breaker(BreakerSettings(failure_threshold=1), clock, jitter=lambda: 1.1)
    leave = breaker.enter()
    assert leave is not None
    breaker.failure(leave)
    assert breaker.ready_in == pytest.approx(11.0)


def test_what_others_say_is_no_opinion_of_ones_own() -> None:
    bench = Bench()
    early = bench.enter()
    bench.breaker.heard_open(7.0, 1)
    assert (bench.state, bench.breaker.ready_in, bench.breaker.opinions) == ("open", 7.0, 0)
    bench.breaker.failure(early)
    bench.clock.now = 7.0
    bench.fail()
    assert (bench.breaker.ready_in, bench.breaker.opinions) == (20.0, 1), "as long as whoever opened it"
    bench.breaker.heard_closed()
    bench.fail(4)
    assert bench.state == "closed", "it counts anew"


def test_probes_wait_for_whoever_leads() -> None:
    bench = Bench()
    bench.breaker.courtesy = 0.5
    bench.fail(5)
    bench.clock.now = 10.0
    assert (bench.state, bench.breaker.admits, bench.breaker.ready_in) == ("half_open", False, 0.5)
    assert bench.breaker.enter() is None
    bench.breaker.follow(2.0)
    admitted = []
    for bench.clock.now in (11.9, 12.0):
        admitted.append(bench.breaker.admits)
    assert admitted == [False, True]
    bench.breaker.follow(2.0)
    bench.breaker.lead()
    bench.succeed(2)
    assert bench.state == "closed"


class BreakerMachine(RuleBasedStateMachine):
    """Any interleaving of calls, results and time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.settings = BreakerSettings(failure_threshold=3, half_open_probes=2, success_threshold=2)
        self.legal = {
            (BreakerState.CLOSED, BreakerState.OPEN),
            (BreakerState.OPEN, BreakerState.HALF_OPEN),
            (BreakerState.HALF_OPEN, BreakerState.OPEN),
            (BreakerState.HALF_OPEN, BreakerState.CLOSED),
            (BreakerState.OPEN, BreakerState.CLOSED),
        }
        self.seen: list[tuple[BreakerState, BreakerState]] = []
        self.breaker = Breaker(self.settings, self.clock, on_change=lambda b, a: self.seen.append((b, a)))
        self.running: list[Pass] = []

    @rule()
    def begin(self) -> None:
        admits = self.breaker.admits
        leave = self.breaker.enter()
        assert (leave is not None) is admits
        if leave is not None:
            self.running.append(leave)

    @rule(result=st.sampled_from(["success", "failure", "neutral"]), which=st.integers(0, 50))
    def end(self, result: str, which: int) -> None:
        if self.running:
            getattr(self.breaker, result)(self.running.pop(which % len(self.running)))

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(what=st.sampled_from(["trip", "check_passed", "check_failed"]))
    def outside(self, what: str) -> None:
        getattr(self.breaker, what)()

    @rule(seconds=st.floats(0.1, 20), reopened=st.integers(0, 3))
    def heard_open(self, seconds: float, reopened: int) -> None:
        self.breaker.heard_open(seconds, reopened)

    @rule()
    def heard_closed(self) -> None:
        self.breaker.heard_closed()

    @invariant()
    def probes_are_bounded_and_never_lost(self) -> None:
        assert all(change in self.legal for change in self.seen)
        assert 0 <= self.breaker._probes <= 2
        if self.breaker.state is BreakerState.OPEN:
            assert 0 < self.breaker.ready_in <= self.settings.open_max + 1e-6

    @invariant()
    def an_idle_breaker_always_recovers(self) -> None:
        if not self.running and self.breaker.state is BreakerState.HALF_OPEN:
            assert self.breaker.admits


TestBreakerMachine = BreakerMachine.TestCase
