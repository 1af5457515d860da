"""The life of an engine as a machine: what is done for every event, in every order of events."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router_server.core.engine import EnginePolicy, EngineState
from router_server.engines.lifecycle import Action, Lifecycle

POLICY = EnginePolicy(
    start_timeout=100.0,
    check_failures=3,
    backoff=1.0,
    backoff_max=8.0,
    hopeless_after=5,
    idle_sleep=60.0,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def life(*, sleeps: bool = True) -> tuple[Lifecycle, Clock]:
    clock = Clock()
    return Lifecycle(POLICY, sleeps=sleeps, clock=clock, jitter=lambda: 1.0), clock


def at(one: Lifecycle) -> str:
    return one.state.value


def ready(*, sleeps: bool = True) -> tuple[Lifecycle, Clock]:
    one, clock = life(sleeps=sleeps)
    assert one.begin() is Action.START
    assert one.checked(well=True) is None
    return one, clock


def asleep() -> tuple[Lifecycle, Clock]:
    one, clock = ready()
    clock.now += 60
    one.tick(busy=False)
    assert one.all_agree() is Action.SLEEP
    assert one.slept(well=True) is None
    return one, clock


def test_a_start_takes_as_long_as_it_may() -> None:
    one, clock = life()
    one.begin()
    assert one.checked(well=False) is None
    clock.now += 99
    assert one.tick(busy=False) is None
    clock.now += 1
    assert one.tick(busy=False) is Action.END
    assert at(one) == "backing_off"
    one.ended("killed")
    assert one.cause == "it was not ready within 100 s"


def test_the_time_of_a_start_is_told() -> None:
    one, clock = life()
    one.begin()
    clock.now += 27
    one.checked(well=True)
    assert one.status.start_duration == 27


def test_restarts_wait_longer_and_longer_until_it_has_run_for_a_while() -> None:
    one, clock = life()
    one.begin()
    waits = []
    for _ in range(6):
        one.ended("it died")
        waits.append(one.waits)
        clock.now += one.waits
        assert one.tick(busy=False) is Action.START
    assert waits == [1, 2, 4, 8, 8, 8]
    assert one.status.restarts == 6
    one.checked(well=True)
    clock.now += 8
    one.ended("it died")
    assert one.waits == 1


def test_five_failures_in_a_row_are_a_failure_and_it_is_tried_again() -> None:
    one, clock = life()
    one.begin()
    for _ in range(5):
        assert at(one) != "failed"
        one.ended("it died")
        clock.now += one.waits
        last = at(one)
        one.tick(busy=False)
    assert last == "failed"
    assert at(one) == "starting"


def test_failed_checks_in_a_row_end_it_and_a_good_one_between_them_does_not() -> None:
    one, _ = ready()
    for well in (False, False, True, False, False):
        assert one.checked(well=well) is None
    assert one.checked(well=False) is Action.END
    assert one.checked(well=False) is None
    assert at(one) == "backing_off"


def test_idle_begins_at_the_last_call() -> None:
    one, clock = ready()
    clock.now += 59
    one.tick(busy=True)
    clock.now += 59
    one.tick(busy=False)
    one.used()
    clock.now += 59
    one.tick(busy=False)
    assert at(one) == "ready"
    clock.now += 1
    one.tick(busy=False)
    assert at(one) == "drowsy"


def test_a_call_ends_drowsiness() -> None:
    one, clock = ready()
    clock.now += 60
    one.tick(busy=False)
    assert one.want() is None
    assert at(one) == "ready"
    assert one.all_agree() is None


def test_a_call_while_it_falls_asleep_wakes_it_at_once_afterwards() -> None:
    one, clock = ready()
    clock.now += 60
    one.tick(busy=False)
    one.all_agree()
    assert one.want() is None
    assert at(one) == "drowsy"
    assert one.slept(well=True) is Action.WAKE
    assert at(one) == "waking"


def test_a_check_that_passes_is_no_waking() -> None:
    one, _ = asleep()
    assert one.want() is Action.WAKE
    one.checked(well=True)
    assert at(one) == "waking"
    one.woke(well=True)
    assert at(one) == "ready"


def test_one_that_cannot_sleep_is_stopped_and_started() -> None:
    one, clock = ready(sleeps=False)
    clock.now += 60
    one.tick(busy=False)
    assert one.all_agree() is Action.END
    one.ended("")
    assert at(one) == "stopped"
    assert one.tick(busy=False) is None
    assert one.want() is Action.START
    assert at(one) == "waking"
    one.checked(well=True)
    assert (at(one), one.status.wakes, one.status.restarts) == ("ready", 1, 0)


def test_the_time_asleep_is_counted_while_it_lasts() -> None:
    one, clock = asleep()
    clock.now += 30
    assert one.status.asleep == 30
    one.want()
    one.woke(well=True)
    clock.now += 30
    assert one.status.asleep == 30


def test_stopped_for_good_nothing_starts_it() -> None:
    one, clock = ready()
    assert one.stop() is Action.END
    assert one.want() is None
    one.ended("")
    clock.now += 1000
    assert one.tick(busy=False) is None
    assert one.want() is None
    assert one.status.asleep == 0


def test_stopped_while_it_waits_nothing_is_to_be_done() -> None:
    one, clock = life()
    one.begin()
    one.ended("it died")
    assert one.stop() is None
    clock.now += 1000
    assert one.tick(busy=False) is None


class AnyLife(RuleBasedStateMachine):
    """Events in any order that a process and its callers allow."""

    def __init__(self) -> None:
        super().__init__()
        self.life, self.clock = life()
        self.process = False
        self.told_to_end = False
        self.asked: Action | None = None
        self.over = False
        self.leaving = False
        self.take(self.life.begin())

    def take(self, action: Action | None) -> None:
        if action is Action.START:
            assert not self.process, "two processes at once"
            self.process, self.told_to_end, self.asked = True, False, None
        elif action is not None:
            assert self.process, f"{action} without a process"
            assert not self.told_to_end, f"{action} after the end"
        if action is Action.END:
            self.told_to_end = True
        if action in {Action.SLEEP, Action.WAKE}:
            assert self.asked is None, "two questions at once"
            self.asked = action
        assert not ((self.over or self.leaving) and action in {Action.START, Action.SLEEP, Action.WAKE})

    @rule(seconds=st.sampled_from([0.1, 1.0, 8.0, 60.0, 100.0]), busy=st.booleans())
    def time_passes(self, seconds: float, busy: bool) -> None:
        self.clock.now += seconds
        self.take(self.life.tick(busy=busy))

    @precondition(lambda self: self.process)
    @rule(well=st.booleans())
    def check(self, well: bool) -> None:
        self.take(self.life.checked(well=well))

    @precondition(lambda self: self.process)
    @rule()
    def end(self) -> None:
        self.process, self.asked = False, None
        self.take(self.life.ended("it died"))

    @rule()
    def want(self) -> None:
        self.take(self.life.want())

    @rule()
    def use(self) -> None:
        self.life.used()

    @precondition(lambda self: self.life.state is EngineState.DROWSY)
    @rule()
    def agree(self) -> None:
        self.take(self.life.all_agree())

    @precondition(lambda self: self.asked is not None)
    @rule(well=st.booleans())
    def answer(self, well: bool) -> None:
        asked, self.asked = self.asked, None
        self.take(self.life.slept(well=well) if asked is Action.SLEEP else self.life.woke(well=well))

    @precondition(lambda self: self.process)
    @rule()
    def stand_still(self) -> None:
        self.take(self.life.give_up("it stands still"))

    @precondition(lambda self: not self.over)
    @rule()
    def stop(self) -> None:
        self.over = True
        self.take(self.life.stop())

    @precondition(lambda self: not self.over and not self.leaving)
    @rule()
    def retire(self) -> None:
        self.leaving = True
        self.take(self.life.retire())

    @precondition(lambda self: self.leaving)
    @rule()
    def leave(self) -> None:
        self.take(self.life.all_left())

    @invariant()
    def one_that_leaves_takes_no_call(self) -> None:
        if self.leaving:
            assert self.life.state in {EngineState.LEAVING, EngineState.STOPPED}
            assert self.life.state is EngineState.LEAVING or self.over

    @invariant()
    def ready_means_a_process_that_nobody_ends(self) -> None:
        if self.life.state is EngineState.READY:
            assert self.process
            assert not self.told_to_end
            assert self.asked is None

    @invariant()
    def it_knows_whether_there_is_a_process(self) -> None:
        assert self.life.alive == self.process

    @invariant()
    def a_wish_is_heard(self) -> None:
        """Whatever happened, an engine that is not over can be had again."""
        if not self.over and not self.leaving and not self.process:
            waits = self.life.state in {EngineState.BACKING_OFF, EngineState.FAILED}
            assert waits or self.life.state is EngineState.STOPPED
            assert self.life.waits <= POLICY.backoff_max


AnyLife.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_any_order_of_events = AnyLife.TestCase
