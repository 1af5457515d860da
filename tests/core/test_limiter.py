from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.limiter import Gate, Limiter, Limits, Permit
from tests.clock import run_in_virtual_time, virtual_time


def limiter(**limits: float) -> Limiter:
    return Limiter(Limits(**limits), asyncio.get_running_loop().time)  # type: ignore[arg-type]


@dataclass
class Line:
    """Calls that queue up at a limiter with one slot, and the order in which they got it."""

    limiter: Limiter
    order: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def join(self, name: str, priority: int = 0, size: int = 0, gate: Gate | None = None) -> None:
        self.tasks.append(asyncio.create_task(self._hold(name, priority, size, gate or Gate())))

    async def _hold(self, name: str, priority: int, size: int, gate: Gate) -> None:
        permit = await self.limiter.acquire(gate, priority=priority, size=size, max_wait=1000)
        self.order.append(name)
        await asyncio.sleep(1)
        permit.release()

    async def done(self) -> Sequence[str]:
        await asyncio.gather(*self.tasks)
        assert (self.limiter.inflight, self.limiter.queued) == (0, 0)
        return self.order


async def line(**limits: float) -> Line:
    queue = Line(limiter(max_concurrency=1, **limits))
    queue.join("first")
    await asyncio.sleep(0)
    return queue


@virtual_time
async def test_who_is_turned_away_waits_no_longer_and_takes_no_slot() -> None:
    limits = limiter(max_concurrency=1)
    limits.pause()
    gate = Gate(capacity=1)
    waiting = [asyncio.create_task(limits.acquire(gate, max_wait=1000)) for _ in range(3)]
    await asyncio.sleep(1)
    limits.turn_away("gone")
    waiting[0].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    for error in done[1:]:
        assert isinstance(error, UpstreamError)
        assert (error.outcome, error.reason) == (Outcome.CIRCUIT_OPEN, "gone")
    assert (limits.queued, limits.inflight, gate.queued, gate.inflight) == (0, 0, 0, 0)
    limits.resume()
    (await limits.acquire(gate, max_wait=0)).release()


@virtual_time
async def test_priority_then_the_shortest_then_arrival() -> None:
    queue = await line(max_wait_boost=1000)
    queue.join("long", size=900)
    queue.join("short", size=10)
    queue.join("urgent", priority=5, size=900)
    queue.join("short too", size=10)
    queue.join("later", priority=-1)
    assert await queue.done() == ["first", "urgent", "short", "short too", "long", "later"]


@virtual_time
async def test_whoever_waited_too_long_goes_first_so_nobody_starves() -> None:
    queue = await line(max_wait_boost=2.0)
    queue.join("long", size=10**6)

    async def flood() -> None:
        for n in range(20):
            queue.join(f"short{n}", priority=9)
            await asyncio.sleep(0.5)

    await flood()
    order = await queue.done()
    assert order.index("long") == 2, "two slots went to the urgent ones within the two seconds of patience"


@virtual_time
async def test_the_boost_is_by_arrival_not_by_priority() -> None:
    queue = await line(max_wait_boost=0.5)
    queue.join("old", size=99)
    queue.join("newer", priority=9)
    assert await queue.done() == ["first", "old", "newer"]


@virtual_time
async def test_a_full_queue_refuses_at_once() -> None:
    queue = await line(max_queue=1)
    queue.join("waits")
    await asyncio.sleep(0)
    with pytest.raises(UpstreamError) as caught:
        await queue.limiter.acquire(Gate())
    assert (caught.value.outcome, caught.value.reason) == (Outcome.SATURATED, "queue_full")
    await queue.done()


@virtual_time
async def test_waiting_has_an_end() -> None:
    full = limiter(max_concurrency=1, queue_timeout=5.0)
    held = await full.acquire(Gate())
    with pytest.raises(UpstreamError) as caught:
        await full.acquire(Gate())
    assert (caught.value.outcome, caught.value.reason) == (Outcome.SATURATED, "queue_timeout")
    assert asyncio.get_running_loop().time() == 5.0
    held.release()
    held.release()
    assert (full.inflight, full.queued) == (0, 0)


@virtual_time
async def test_who_has_no_time_to_wait_is_refused_without_queueing() -> None:
    full = limiter(max_concurrency=1)
    held = await full.acquire(Gate(), max_wait=0.0)
    with pytest.raises(UpstreamError) as caught:
        full.acquire(Gate(), max_wait=0.0).send(None)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.SATURATED, "queue_timeout")
    held.release()


@virtual_time
async def test_a_gate_holds_its_own_target_back_and_nobody_else() -> None:
    shared = limiter(max_concurrency=2)
    narrow, wide = Gate(1), Gate()
    first = await shared.acquire(narrow)
    second = asyncio.create_task(shared.acquire(narrow))
    await asyncio.sleep(0)
    assert narrow.queued == 1
    other = await asyncio.wait_for(shared.acquire(wide), 1)
    assert (shared.inflight, narrow.inflight, wide.inflight) == (2, 1, 1)
    other.release()
    assert not second.done()
    first.release()
    (await second).release()
    assert (shared.inflight, narrow.inflight, narrow.queued) == (0, 0, 0)


@virtual_time
async def test_a_wider_limit_admits_whoever_fits() -> None:
    growing = limiter(max_concurrency=1)
    await growing.acquire(Gate())
    waiting = [asyncio.create_task(growing.acquire(Gate())) for _ in range(3)]
    await asyncio.sleep(0)
    growing.max_concurrency = 3
    growing.admit()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, False]
    waiting[2].cancel()


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["acquire", "release", "cancel", "sleep"]),
            st.integers(0, 7),
            st.integers(-2, 2),
            st.integers(0, 3),
        ),
        max_size=60,
    ),
    capacity=st.integers(1, 3),
    queue=st.integers(0, 4),
)
def test_no_slot_is_ever_lost_or_given_twice(
    steps: list[tuple[str, int, int, int]], capacity: int, queue: int
) -> None:
    async def play() -> None:
        limit = limiter(max_concurrency=capacity, max_queue=queue, queue_timeout=3.0)
        gates = [Gate(1), Gate(2), Gate(), Gate()]
        held: list[Permit] = []
        waiting: list[asyncio.Task[None]] = []

        async def acquire(gate: Gate, priority: int, size: int) -> None:
            try:
                held.append(await limit.acquire(gate, priority=priority, size=size))
            except UpstreamError as error:
                assert error.outcome is Outcome.SATURATED  # noqa: PT017 - either end is right

        for step, which, priority, gate in steps:
            if step == "acquire":
                waiting.append(asyncio.create_task(acquire(gates[gate], priority, which)))
            elif step == "release" and held:
                held.pop(which % len(held)).release()
            elif step == "cancel" and waiting:
                waiting[which % len(waiting)].cancel()
            if which % 2:
                await asyncio.sleep(which if step == "sleep" else 0)
            assert limit.inflight <= capacity
            assert limit.queued <= queue
            assert gates[0].inflight <= 1
            assert gates[1].inflight <= 2
        await asyncio.sleep(10)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert limit.inflight == len(held)
        while held:
            held.pop().release()
        assert (limit.inflight, limit.queued) == (0, 0)
        assert all((g.inflight, g.queued) == (0, 0) for g in gates)

    run_in_virtual_time(play())
