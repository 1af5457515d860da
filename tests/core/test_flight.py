"""One answer for several callers: each has a deadline and a pace of its own, and what is held is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.caching import CacheSettings, CachingRouter
from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, Phase, Reason, RouterError
from router_server.core.flight import AHEAD, HELD, Flight, Wishes
from router_server.core.outbox import TAKEN
from router_server.core.record import replace
from router_server.core.results import Finished, Heartbeat, Started, StreamEvent
from router_server.core.router import RouterSettings
from router_server.core.shelf import MemoryShelf, Shelf
from router_server.core.types import Delta, DeltaKind, Generation, Routing, Usage
from tests.clock import run_in_virtual_time, virtual_time
from tests.core.scripted import Rig, ask, collect, done, invocation, rig, said

COLD = Generation(temperature=0.0)
SLOW = Timeouts(first_token=1_000.0, idle=1_000.0, unary=1_000.0)


def caching(r: Rig, shelf: Shelf | None = None) -> CachingRouter:
    clock = asyncio.get_running_loop().time
    return CachingRouter(
        r.router,
        r.router,
        {"r": CacheSettings(3_600.0)},
        idempotency_ttl=600.0,
        shelf=shelf or MemoryShelf(1 << 20, clock),
        name_key=lambda what, digest: f"{what}:{digest}",
        observer=r.recorder,
        clock=clock,
        settings=RouterSettings(),
    )


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


class Caller:
    """One who asks, by a stream or for a whole answer; what came of it, and when."""

    def __init__(
        self,
        router: CachingRouter,
        seconds: float | None,
        *,
        streaming: bool = True,
        routing: Routing | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.events: list[StreamEvent] = []
        self.error: RouterError | None = None
        self.ended = -1.0
        request = ask(generation=COLD, routing=routing or Routing(allow_cache=True))
        work = self._stream if streaming else self._chat
        self.task = asyncio.create_task(work(router, request, seconds))

    async def _stream(self, router: CachingRouter, request: Any, seconds: float | None) -> None:
        try:
            async with aclosing(router.stream(request, invocation(seconds))) as events:
                async for event in events:
                    self.events.append(event)
        except RouterError as error:
            self.error = error
        self.ended = self._loop.time()

    async def _chat(self, router: CachingRouter, request: Any, seconds: float | None) -> None:
        try:
            result = await router.chat(request, invocation(seconds))
        except RouterError as error:
            self.error = error
        else:
            part = result.answer.message.content[0]
            self.events.append(Delta(0, DeltaKind.TEXT, getattr(part, "text", "")))
        self.ended = self._loop.time()

    @property
    def text(self) -> str:
        return text_of(self.events)


STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])


@pytest.mark.parametrize(
    ("streaming", "script", "phase"),
    [
        (True, [said("Hel"), 5.0, said("lo"), done(Usage(3, 2))], Phase.STREAM),
        (True, [5.0, said("Hello"), done(Usage(3, 2))], Phase.FIRST_TOKEN),
        (False, [5.0, said("Hello"), done(Usage(3, 2))], Phase.FIRST_TOKEN),
    ],
    ids=["after the first event", "before it", "unary"],
)
@virtual_time
async def test_the_first_caller_s_deadline_is_its_own(streaming: bool, script: Any, phase: Phase) -> None:
    r = rig([script])
    router = caching(r)
    first = Caller(router, 2.0, streaming=streaming)
    await asyncio.sleep(1.0)
    second = Caller(router, 20.0, streaming=streaming)
    await asyncio.wait({first.task, second.task})
    assert first.error is not None
    assert (first.error.reason, first.error.phase) == (Reason.DEADLINE_EXCEEDED, phase)
    assert first.ended == pytest.approx(1.95)
    assert (second.text, second.error) == ("Hello", None)
    assert len(r.providers["a"].calls) == 1
    assert r.idle
    assert not router.replays.flights


@STREAMING
@virtual_time
async def test_so_is_that_of_one_who_joins(streaming: bool) -> None:
    r = rig([[5.0, said("Hello"), done(Usage(3, 2))]])
    router = caching(r)
    first = Caller(router, None, streaming=streaming)
    await asyncio.sleep(1.0)
    second = Caller(router, 2.0, streaming=streaming)
    await asyncio.wait({first.task, second.task})
    assert second.error is not None
    assert (second.error.reason, second.error.phase) == (Reason.DEADLINE_EXCEEDED, Phase.FIRST_TOKEN)
    assert first.text == "Hello"
    assert second.ended == pytest.approx(2.95)
    joined, asked = r.recorder.calls
    assert (joined.reused, joined.error, joined.attempts) == ("joined", Reason.DEADLINE_EXCEEDED, ())
    assert (asked.reused, asked.error) == (None, None)


@STREAMING
@virtual_time
async def test_who_is_alone_ends_as_without_a_cache(streaming: bool) -> None:
    r = rig([[100.0]])
    caller = Caller(caching(r), 10.0, streaming=streaming)
    await caller.task
    assert caller.error is not None
    assert caller.error.reason is Reason.DEADLINE_EXCEEDED
    assert caller.ended == pytest.approx(9.95, abs=0.1)
    assert [one.outcome for one in caller.error.attempts] == [Outcome.TIMEOUT]
    assert r.recorder.calls[0].error is Reason.DEADLINE_EXCEEDED
    assert r.idle


@STREAMING
@virtual_time
async def test_when_everybody_s_time_is_over_so_is_the_call(streaming: bool) -> None:
    r = rig([[100.0]], timeouts=SLOW)
    router = caching(r)
    callers = []
    for timeout in (5.0, 7.0, 3.0):
        callers.append(Caller(router, timeout, streaming=streaming))
        await asyncio.sleep(1.0)
    await asyncio.wait({caller.task for caller in callers})
    assert [caller.ended for caller in callers] == [pytest.approx(at, abs=0.11) for at in (4.95, 7.95, 4.95)]
    assert {caller.error and caller.error.reason for caller in callers} == {Reason.DEADLINE_EXCEEDED}
    assert asyncio.get_running_loop().time() < 8.0
    assert (r.idle, router.replays.flights) == (True, [])


@virtual_time
async def test_who_joins_gives_its_time_to_the_attempt_that_runs_and_to_those_after_it() -> None:
    r = rig([[100.0]], [[said("Hello"), done(Usage(3, 2))]])
    router = caching(r)
    first = Caller(router, 10.0)
    await asyncio.sleep(1.0)
    second = Caller(router, 30.0)
    await asyncio.wait({first.task, second.task})
    # Half of 9.95 s at first, and half of the 21 s that came; the target's own limit is 15 s.
    assert r.providers["b"].times == [pytest.approx(15.0)]
    assert first.error is not None
    assert second.text == "Hello"


@virtual_time
async def test_each_has_signs_of_life_as_it_asked() -> None:
    r = rig([[said("Hel"), 3.4, said("lo"), done(Usage(3, 2))]])
    router = caching(r)
    wishes: list[float | None] = [None, 1.0, 0.5]
    callers = [Caller(router, None, routing=Routing(heartbeat_interval=wish)) for wish in wishes]
    await asyncio.wait({caller.task for caller in callers})
    assert [sum(isinstance(e, Heartbeat) for e in caller.events) for caller in callers] == [0, 3, 6]
    assert [caller.text for caller in callers] == ["Hello"] * 3
    assert all(isinstance(caller.events[0], Started) for caller in callers)
    again = Caller(router, None)
    await again.task
    assert (again.text, len(r.providers["a"].calls)) == ("Hello", 1)
    assert r.recorder.calls[-1].reused == "cache"


class SlowShelf(MemoryShelf):
    """Keeps an answer when it is told to."""

    def __init__(self) -> None:
        super().__init__(1 << 20, asyncio.get_running_loop().time)
        self.go_on = asyncio.Event()

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self.go_on.wait()
        await super().put(key, value, ttl)


@virtual_time
async def test_nobody_waits_until_it_is_kept_and_nobody_asks_again_meanwhile() -> None:
    r, shelf = rig([[said("Hello"), done(Usage(3, 2))]]), SlowShelf()
    router = caching(r, shelf)
    calls: list[asyncio.Task[None]] = []
    first = replace(invocation(), lasts=calls.append)
    assert text_of(await collect(router.stream(ask(generation=COLD), first))) == "Hello"
    await asyncio.sleep(0)
    assert [call.done() for call in calls] == [True], "what the caller has taken is free again"
    assert text_of(await collect(router.stream(ask(generation=COLD), invocation()))) == "Hello"
    shelf.go_on.set()
    await asyncio.sleep(1.0)
    assert not router.replays.flights
    assert text_of(await collect(router.stream(ask(generation=COLD), invocation()))) == "Hello"
    assert [one.reused for one in r.recorder.calls] == [None, "joined", "cache"]
    assert len(r.providers["a"].calls) == 1


PIECE = 16 * 1024


async def many(count: int, made: list[int]) -> AsyncGenerator[Any, None]:
    yield "begin"
    for number in range(count):
        made.append(number)
        yield Delta(0, DeltaKind.TEXT, f"{number:08d}" * (PIECE // 8))
    yield "end"


def whole(count: int) -> str:
    return "".join(f"{number:08d}" * (PIECE // 8) for number in range(count))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 200),
    readers=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from([0.0, 0.01, 0.1, 1.0]), st.integers(1, 10_000)),
        min_size=1,
        max_size=4,
    ),
)
def test_every_reader_gets_all_of_it_and_what_is_held_is_bounded(
    count: int, readers: list[tuple[float, float, int]]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        closed: list[float] = []
        flight = Flight(1e9, loop.time, lambda: closed.append(loop.time()))
        made: list[int] = []
        most = 0

        async def read(pause: float, gives_up_after: int) -> None:
            nonlocal most
            got: list[Any] = []
            if closed:
                return  # nobody finds it any more
            async with aclosing(flight.follow(Wishes(1e9))) as events:
                async for event in events:
                    got.append(event)
                    most = max(most, flight.held)
                    if len(got) >= gives_up_after:
                        return
                    await asyncio.sleep(pause)
            assert (got[0], got[-1], text_of(got)) == ("begin", "end", whole(count))

        tasks: list[asyncio.Task[None]] = []
        task: asyncio.Task[None] | None = None
        for late, pause, patience in sorted(readers):
            await asyncio.sleep(max(0.0, late - loop.time()))
            tasks.append(asyncio.create_task(read(pause, patience)))
            task = task or flight.begin(many(count, made), lambda _all: flight.close(), "flight")
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert task is not None
        await asyncio.wait({task})
        assert most <= HELD + TAKEN + 2 * PIECE
        assert len(closed) == 1

    run_in_virtual_time(main())


@virtual_time
async def test_it_is_read_no_further_than_its_quickest_reader() -> None:
    loop = asyncio.get_running_loop()
    made: list[int] = []
    flight = Flight(1e9, loop.time, lambda: None)
    slow, quick = (flight.follow(Wishes(1e9)) for _ in range(2))
    beginning = asyncio.ensure_future(anext(slow))
    task = flight.begin(many(1_000, made), lambda _all: flight.close(), "flight")
    assert await beginning == "begin"
    await asyncio.sleep(1.0)
    assert len(made) * PIECE <= AHEAD + TAKEN + PIECE, "nobody reads"
    for _ in range(10):
        await anext(quick)
    await asyncio.sleep(1.0)
    assert len(made) * PIECE > 9 * TAKEN, "a slow one does not hold up the other"
    reading = asyncio.ensure_future(collect(quick))
    await asyncio.sleep(5.0)
    assert len(made) * PIECE <= HELD + 4 * TAKEN, "but not for ever: what it has not taken is held"
    assert not reading.done()
    await slow.aclose()
    assert text_of(await reading)[-8:] == "00000999"
    await asyncio.wait({task})
    assert flight.waiting == 0


@virtual_time
async def test_many_small_deltas_that_all_have_read_are_held_as_few() -> None:
    loop = asyncio.get_running_loop()
    kept: list[Any] = []

    async def small() -> AsyncGenerator[Any, None]:
        for _ in range(40_000):
            yield Delta(0, DeltaKind.TEXT, "word ")

    flight = Flight(1e9, loop.time, lambda: None)
    task: asyncio.Task[None] | None = None
    reading = asyncio.create_task(collect(flight.follow(Wishes(1e9))))
    await asyncio.sleep(0)
    task = flight.begin(small(), kept.extend, "flight")
    assert text_of(await reading) == "word " * 40_000
    await task
    assert text_of(kept) == "word " * 40_000
    assert len(kept) < 40_000 // 2


@virtual_time
async def test_a_finished_answer_is_one_whole() -> None:
    r = rig([[said("Hello"), done(Usage(3, 2))]])
    events = await collect(caching(r).stream(ask(generation=COLD), invocation()))
    assert isinstance(events[-1], Finished)
    assert r.idle
