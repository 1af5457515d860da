from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router_server.core.adaptive import Adaptive, Place
from router_server.core.errors import Outcome, RouterError
from router_server.core.limiter import Gate, Limiter, Limits
from router_server.core.pace import Pace
from router_server.core.results import Finished
from router_server.core.types import Usage
from tests.clock import virtual_time
from tests.core.scripted import Act, ask, collect, done, fails, invocation, rig, said

HELLO: list[Act] = [said("Hel"), said("lo"), done(Usage(3, 2))]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """A limiter with an adaptive limit, and calls that hold its places."""

    def __init__(self, most: int = 64, least: int = 4) -> None:
        self.clock = Clock()
        self.limiter = Limiter(Limits(most), self.clock)
        self.adaptive = Adaptive(self.limiter, least, self.clock)
        self.pace = Pace(self.clock)

    @property
    def limit(self) -> int:
        return self.limiter.max_concurrency

    def place(self, inflight: int) -> Place:
        self.limiter.inflight = inflight
        return self.adaptive.place()

    def full(self) -> Place:
        return self.place(self.limit)

    def round_trip(self, outcome: Outcome = Outcome.OK) -> None:
        """As many calls as there are places, all of which take the last one."""
        places = [self.place(taken + 1) for taken in range(self.limit)]
        self.clock.now += 1.0
        for place in places:
            place.ended(outcome)
        self.clock.now += 1.0


def test_it_begins_with_what_is_configured_and_stays_there_while_all_is_well() -> None:
    provider = Provider(most=8)
    for _ in range(10):
        provider.round_trip()
    assert provider.limit == 8


def test_a_burst_of_refusals_is_one_decrease_and_the_next_round_another() -> None:
    provider = Provider()
    seen = []
    for _ in range(8):
        provider.round_trip(Outcome.RATE_LIMITED)
        seen.append(provider.limit)
    assert seen == [44, 30, 21, 14, 9, 6, 4, 4]


def test_the_least_is_never_more_than_what_is_configured() -> None:
    provider = Provider(most=2, least=4)
    provider.round_trip(Outcome.RATE_LIMITED)
    assert provider.limit == 2


def test_one_place_more_for_each_round_trip_in_full_use() -> None:
    provider = Provider()
    for _ in range(6):
        provider.round_trip(Outcome.RATE_LIMITED)
    assert provider.limit == 6
    seen = []
    for _ in range(4):
        provider.round_trip()
        seen.append(provider.limit)
    assert seen == [7, 8, 9, 10]


def test_what_went_well_before_a_refusal_earns_nothing_after_it() -> None:
    provider = Provider()
    for _ in range(6):
        provider.round_trip(Outcome.RATE_LIMITED)
    for _ in range(5):
        provider.full().ended(Outcome.OK)
    provider.clock.now += 1.0
    provider.round_trip(Outcome.RATE_LIMITED)
    assert provider.limit == 4
    for _ in range(3):
        provider.full().ended(Outcome.OK)
    assert provider.limit == 4


def test_places_that_nobody_takes_are_no_reason_for_more() -> None:
    provider = Provider()
    provider.round_trip(Outcome.RATE_LIMITED)
    for _ in range(1000):
        provider.place(provider.limit - 1).ended(Outcome.OK)
    assert provider.limit == 44


def test_a_refusal_counts_from_what_was_in_flight_but_halves_at_most() -> None:
    provider = Provider()
    first = provider.place(1)
    provider.clock.now += 1.0
    provider.limiter.inflight = 49
    first.ended(Outcome.RATE_LIMITED)
    assert provider.limit == 35, "50 were in flight when one was refused"
    provider.clock.now += 1.0
    last = provider.place(3)
    provider.limiter.inflight = 2
    last.ended(Outcome.RATE_LIMITED)
    assert provider.limit == 17, "three calls at once were not too many at once"


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in {Outcome.OK, Outcome.RATE_LIMITED}])
def test_other_failures_say_nothing_of_the_number_of_calls(outcome: Outcome) -> None:
    provider = Provider()
    provider.round_trip(outcome)
    assert provider.limit == 64


def began(provider: Provider, seconds: float, inflight: int | None = None) -> None:
    """A round of first tokens that come after ``seconds``."""
    places = [provider.place(provider.limit if inflight is None else inflight) for _ in range(provider.limit)]
    for place in places:
        provider.clock.now += 10.0
        place.began(provider.pace, SIZE, seconds)


SIZE = 100


def test_a_round_that_is_twice_as_late_as_usual_is_too_many_calls() -> None:
    provider = Provider(most=32)
    for _ in range(4):
        began(provider, 0.5)
    began(provider, 0.9)
    assert provider.limit == 32
    began(provider, 1.1)
    assert provider.limit == 28
    began(provider, 0.5)
    assert provider.limit == 28


def test_what_was_late_before_a_decrease_is_no_reason_for_another() -> None:
    provider = Provider(most=32)
    for _ in range(4):
        began(provider, 0.5)
    places = [provider.full() for _ in range(96)]
    for place in places:
        provider.clock.now += 0.1
        place.began(provider.pace, SIZE, 2.0)
    assert provider.limit == 28


def test_a_provider_that_is_slow_with_little_to_do_is_left_as_it_is() -> None:
    provider = Provider(most=32)
    for seconds in [0.5] * 5 + [3.0] * 5:
        began(provider, seconds, inflight=15)
    assert provider.limit == 32


class AdaptiveMachine(RuleBasedStateMachine):
    """Calls begin and end in any way and order: the limit stays in its bounds, and moves in small steps."""

    @initialize(most=st.integers(1, 20), least=st.integers(1, 20))
    def begin(self, most: int, least: int) -> None:
        self.clock = Clock()
        self.limiter = Limiter(Limits(most, max_queue=0), self.clock)
        self.least = min(least, most)
        self.adaptive = Adaptive(self.limiter, least, self.clock)
        self.pace = Pace(self.clock)
        self.held: list[Place] = []
        self.decreases = 0

    @rule()
    def call(self) -> None:
        if self.limiter.has_room(Gate()):
            self.limiter.inflight += 1
            self.held.append(self.adaptive.place())

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), seconds=st.floats(0.001, 60.0))
    def token(self, which: int, seconds: float) -> None:
        before = self.limiter.max_concurrency
        self.held[which % len(self.held)].began(self.pace, which, seconds)
        assert before // 2 <= self.limiter.max_concurrency <= before

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), outcome=st.sampled_from(Outcome))
    def end(self, which: int, outcome: Outcome) -> None:
        place = self.held.pop(which % len(self.held))
        before = self.limiter.max_concurrency
        self.limiter.inflight -= 1
        place.ended(outcome)
        after = self.limiter.max_concurrency
        assert after <= before + 1
        assert after >= before or outcome is Outcome.RATE_LIMITED
        assert after >= before // 2

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def within_bounds(self) -> None:
        if hasattr(self, "limiter"):
            assert self.least <= self.limiter.max_concurrency <= self.limiter.limits.max_concurrency


TestAdaptive = AdaptiveMachine.TestCase
TestAdaptive.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@virtual_time
async def test_a_wider_limit_lets_in_who_waits() -> None:
    clock = asyncio.get_running_loop().time
    limiter = Limiter(Limits(4), clock)
    adaptive = Adaptive(limiter, 1, clock)
    limiter.max_concurrency = 1
    held = await limiter.acquire(Gate())
    place = adaptive.place()
    waiting = asyncio.create_task(limiter.acquire(Gate()))
    await asyncio.sleep(0)
    assert limiter.queued == 1
    place.ended(Outcome.OK)
    (await asyncio.wait_for(waiting, 0.1)).release()
    held.release()
    assert (limiter.inflight, limiter.max_concurrency) == (0, 2)


@virtual_time
async def test_refusals_through_the_router_lower_the_limit_of_their_provider() -> None:
    r = rig([[0.1, fails(Outcome.RATE_LIMITED, retry_after=1.0)]], [HELLO], adaptive=4, limits=Limits(10))
    await asyncio.gather(*(r.router.chat(ask(), invocation()) for _ in range(10)))
    assert [r.upstreams[name].limiter.max_concurrency for name in "ab"] == [7, 10]
    await asyncio.sleep(1.0)
    r.providers["a"].scripts = [[0.1, *HELLO]]
    for _ in range(5):
        await asyncio.gather(*(r.router.chat(ask(), invocation()) for _ in range(10)))
    assert r.upstreams["a"].limiter.max_concurrency == 10
    assert r.idle


@virtual_time
async def test_late_first_tokens_through_the_router_lower_the_limit() -> None:
    r = rig([[0.1, *HELLO]], adaptive=4, limits=Limits(10))

    async def stream() -> None:
        events = await collect(r.router.stream(ask(), invocation()))
        assert isinstance(events[-1], Finished)

    for _ in range(20):
        await asyncio.gather(*(stream() for _ in range(10)))
        await asyncio.sleep(10.0)
    assert r.upstreams["a"].limiter.max_concurrency == 10
    r.providers["a"].scripts = [[0.5, *HELLO]]
    for _ in range(2):
        await asyncio.gather(*(stream() for _ in range(10)))
    assert r.upstreams["a"].limiter.max_concurrency == 9
    assert r.idle


@virtual_time
async def test_a_long_answer_is_one_first_token() -> None:
    r = rig([[0.1, *HELLO]], adaptive=4, limits=Limits(10))
    for _ in range(200):
        await collect(r.router.stream(ask(), invocation()))
        await asyncio.sleep(1.0)
    r.providers["a"].scripts = [[0.5, *[said("word ")] * 100, done()]]
    holders = [asyncio.create_task(r.upstreams["a"].limiter.acquire(Gate())) for _ in range(9)]
    await collect(r.router.stream(ask(), invocation()))
    assert r.upstreams["a"].limiter.max_concurrency == 10
    for holder in holders:
        (await holder).release()


@virtual_time
async def test_a_provider_that_is_not_adaptive_keeps_its_limit() -> None:
    r = rig([[fails(Outcome.RATE_LIMITED, retry_after=1.0)]], limits=Limits(10))
    with pytest.raises(RouterError):
        await r.router.chat(ask(), invocation(0.5))
    assert r.upstreams["a"].limiter.max_concurrency == 10
