"""Breakers of several processes that share a board, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.agreement import COURTESY, EVERY, MUTED, PROBING_LEASE, Agreement, Heard, Say
from router_server.core.breaker import Breaker, BreakerSettings
from router_server.core.shared import UnreachableError
from router_server.state.breaker_board import SharedBoard
from router_server.state.memory import MemoryStore
from tests.clock import virtual_time

SOON = EVERY + 0.01
SETTINGS = BreakerSettings()


@dataclass
class Line:
    """A process's way to the board, which may be cut."""

    board: SharedBoard
    cut: bool = False

    async def exchange(self, says: Mapping[str, Say]) -> Mapping[str, Heard]:
        if self.cut:
            raise UnreachableError
        return await self.board.exchange(says)


@dataclass
class Replica:
    """One process with one target, which its calls find well or not."""

    store: MemoryStore
    reaches: bool = True
    probes: int = 0
    line: Line = field(init=False)
    breaker: Breaker = field(init=False)
    agreement: Agreement = field(init=False)

    def __post_init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.line = Line(SharedBoard(self.store))
        self.agreement = Agreement(self.line, clock)
        self.breaker = Breaker(SETTINGS, clock, on_change=lambda _b, _a: self.agreement.changed())
        self.agreement.change([("t", self.breaker)])

    @property
    def state(self) -> str:
        return str(self.breaker.state)

    def call(self) -> bool:
        """Make a call as a plan does; tell whether it went to the target."""
        if not self.breaker.closed:
            self.breaker.wanted = True
        if not self.breaker.admits:
            return False
        leave = self.breaker.enter()
        assert leave is not None
        self.probes += 1
        (self.breaker.success if self.reaches else self.breaker.failure)(leave)
        return True

    def fail(self) -> None:
        self.reaches = False
        while self.state == "closed":
            self.call()
        self.probes = 0


@asynccontextmanager
async def replicas(count: int = 3) -> AsyncIterator[list[Replica]]:
    loop = asyncio.get_running_loop()
    store = MemoryStore(loop.time)
    some = [Replica(store) for _ in range(count)]
    running = []
    for one in some:
        running.append(asyncio.create_task(one.agreement.run()))
        await asyncio.sleep(EVERY / count)
    try:
        yield some
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def busy(some: list[Replica], seconds: float, every: float = 0.05) -> None:
    """Let each make a call after the other for so long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        for one in some:
            one.call()
        await asyncio.sleep(every)


@virtual_time
async def test_what_one_opens_all_have_open_soon_and_for_as_long() -> None:
    async with replicas() as (a, b, c):
        a.fail()
        await asyncio.sleep(SOON)
        assert (b.state, c.state) == ("open", "open")
        assert abs(b.breaker.ready_in - a.breaker.ready_in) < 0.01
        assert (a.breaker.opinions, b.breaker.opinions) == (1, 0)


@virtual_time
async def test_one_of_three_probes_and_all_close() -> None:
    async with replicas() as some:
        some[0].fail()
        await asyncio.sleep(SOON)
        await busy(some, 9)
        assert [one.probes for one in some] == [0, 0, 0]
        for one in some:
            one.reaches = True
        await busy(some, 1.5, every=0.01)
        assert [one.state for one in some] == ["closed"] * 3
        for one in some:
            assert one.breaker.reopened == 0


@virtual_time
async def test_while_it_fails_each_open_period_costs_one_probe_in_all() -> None:
    async with replicas() as some:
        for one in some:
            one.reaches = False
        some[1].fail()
        await asyncio.sleep(SOON)
        await busy(some, 9.5, every=0.01)
        assert sum(one.probes for one in some) == 0
        await busy(some, 1.0, every=0.01)
        assert sum(one.probes for one in some) == 1
        assert all(15 < one.breaker.ready_in <= 20 for one in some), "it doubles for all"
        await busy(some, 20.5, every=0.01)
        assert sum(one.probes for one in some) == 2


@virtual_time
async def test_who_has_the_right_to_probe_and_dies_is_waited_for_no_longer_than_its_lease() -> None:
    async with replicas(2) as (a, b):
        a.fail()
        await asyncio.sleep(10.1)
        a.breaker.wanted = True
        await asyncio.sleep(SOON)
        assert a.breaker.admits
        a.line.cut = True
        await busy([b], PROBING_LEASE - 2 * EVERY, every=0.01)
        assert b.probes == 0
        await busy([b], 4 * EVERY, every=0.01)
        assert b.state == "closed"


@virtual_time
async def test_after_that_lease_a_single_call_probes_too() -> None:
    async with replicas(2) as (a, b):
        a.fail()
        await asyncio.sleep(10.1)
        a.breaker.wanted = True
        await asyncio.sleep(2 * SOON)
        a.line.cut = b.reaches = True
        assert not b.call()
        b.breaker.wanted = False
        await asyncio.sleep(PROBING_LEASE + 2 * EVERY)
        assert b.call()


@virtual_time
async def test_one_that_hears_nothing_goes_by_itself_and_tells_later() -> None:
    async with replicas(2) as (a, b):
        a.line.cut = True
        a.fail()
        await asyncio.sleep(5)
        assert b.state == "closed"
        a.line.cut = False
        await asyncio.sleep(2 * SOON)
        assert b.state == "open"
        a.line.cut = b.line.cut = True
        a.reaches = b.reaches = True
        await asyncio.sleep(5.1)
        assert a.call()
        assert b.call(), "without a board nobody is waited for"


@virtual_time
async def test_nobody_waits_longer_than_a_moment_for_whoever_may_probe_first() -> None:
    async with replicas(2) as (a, b):
        a.fail()
        await asyncio.sleep(10.1 + COURTESY)
        a.reaches = b.reaches = True
        assert b.call(), "one call in a long while probes at once"


@virtual_time
async def test_a_check_that_passes_lets_one_of_them_probe_early() -> None:
    async with replicas() as some:
        some[0].fail()
        await asyncio.sleep(SOON)
        for one in some:
            one.reaches = True
            one.breaker.check_passed()
        assert [one.call() for one in some] == [False] * 3
        await busy(some, 2 * SOON, every=0.01)
        assert [one.state for one in some] == ["closed"] * 3


@virtual_time
async def test_a_process_that_alone_cannot_reach_a_target_does_not_take_it_from_the_others() -> None:
    async with replicas() as (a, b, c):
        a.fail()
        await busy([b, c], 11, every=0.01)
        assert (b.state, c.state) == ("closed", "closed")
        await asyncio.sleep(SOON)
        assert a.state == "closed"
        a.fail()
        await busy([b, c], 5)
        assert (a.state, b.state, c.state) == ("open", "closed", "closed")
        await busy([a, b, c], 7)
        assert a.probes >= 1, "it probes by itself"
        await busy([b, c], MUTED)
        a.reaches = True
        while a.state != "closed":
            await busy([a], 1)
        a.fail()
        await asyncio.sleep(SOON)
        assert b.state == "open", "a minute later it is heard again"


@virtual_time
async def test_one_that_comes_later_learns_what_is_open_and_what_is_probed() -> None:
    async with replicas(2) as (a, _b):
        a.fail()
        await asyncio.sleep(SOON)
        late = Replica(a.store)
        await late.agreement.round()
        assert late.state == "open"
        await asyncio.sleep(10)
        a.breaker.wanted = True
        await asyncio.sleep(SOON)
        later = Replica(a.store)
        await later.agreement.round()
        assert not later.breaker.admits


@virtual_time
async def test_a_reload_keeps_what_was_heard_of_a_breaker_and_tells_it_to_a_new_one() -> None:
    async with replicas(2) as (a, b):
        a.fail()
        await asyncio.sleep(SOON)
        b.breaker.heard_closed()
        b.agreement.change([("t", b.breaker)])
        await asyncio.sleep(SOON)
        assert b.state == "closed", "the word was heard before"
        fresh = Breaker(SETTINGS, asyncio.get_running_loop().time)
        b.agreement.change([("t", fresh)])
        await asyncio.sleep(SOON)
        assert fresh.state == "open"


@virtual_time
async def test_whoever_has_no_calls_leaves_the_probe_to_others() -> None:
    async with replicas(2) as (a, b):
        b.breaker.wanted = True  # long ago
        a.fail()
        await asyncio.sleep(10.1)
        a.reaches = True
        a.breaker.wanted = True
        await asyncio.sleep(2 * SOON)
        assert (a.call(), b.breaker.admits) == (True, False)


@virtual_time
async def test_a_board_that_forgot_everything_is_no_news() -> None:
    async with replicas(2) as (a, b):
        a.fail()
        await asyncio.sleep(SOON)
        await a.store.drop("modelrouter:{breaker}:t")
        await asyncio.sleep(1)
        assert (a.state, b.state) == ("open", "open")
        a.reaches = b.reaches = True
        await busy([a, b], 11, every=0.01)
        assert (a.state, b.state) == ("closed", "closed")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["fails", "well", "cut", "joined", "checked", "calls"]), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.floats(0.05, 15)),
    ),
    max_size=40,
)


def done_by(one: Replica, what: str) -> None:
    match what:
        case "fails" | "well":
            one.reaches = what == "well"
        case "cut" | "joined":
            one.line.cut = what == "cut"
        case "checked":
            one.breaker.check_passed()
        case "calls":
            for _ in range(6):
                one.call()


async def lived(some: list[Replica], steps: list[tuple[str, float]]) -> None:
    """Do these steps, mend everything, and give it the time that one open period takes."""
    for what, which in steps:
        if what == "wait":
            await asyncio.sleep(which)
        else:
            done_by(some[int(which)], what)
    for one in some:
        one.reaches, one.line.cut = True, False
    await busy(some, SETTINGS.open_max + COURTESY + PROBING_LEASE + 1, every=0.1)


@given(steps=STEPS)
@settings(deadline=None, max_examples=25)
@virtual_time
async def test_whatever_happens_all_use_the_target_soon_after_all_is_well(
    steps: list[tuple[str, float]],
) -> None:
    async with replicas() as some:
        await lived(some, steps)
        assert [one.state for one in some] == ["closed"] * 3


@given(steps=STEPS)
@settings(deadline=None, max_examples=25)
@virtual_time
async def test_whatever_happened_what_one_opens_then_is_open_for_all(
    steps: list[tuple[str, float]],
) -> None:
    async with replicas() as some:
        await lived(some, steps)
        await asyncio.sleep(MUTED)
        some[0].fail()
        await asyncio.sleep(SOON)
        assert [one.state for one in some] == ["open"] * 3
