"""Whatever targets do, whenever the caller leaves: a hedged call ends once, in order, and holds nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.breaker import BreakerSettings
from router_server.core.errors import Outcome, RouterError
from router_server.core.hedge import HEDGE_LOST, Hedging
from router_server.core.limiter import Limits
from router_server.core.results import Finished, Reset, Started, StreamEvent
from router_server.core.types import Delta, Report, Routing, StreamRecovery, Usage
from tests.clock import run_in_virtual_time
from tests.core.scripted import Act, Rig, ask, done, fails, invocation, rig, said

FAILURES = st.sampled_from(
    [o for o in Outcome if o not in {Outcome.OK, Outcome.CANCELLED, Outcome.CIRCUIT_OPEN}]
)
QUICK = BreakerSettings(failure_threshold=1, open=0.2, open_max=0.2, success_threshold=1)
ACTS = st.one_of(
    st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 20.0]),
    st.builds(said, st.sampled_from(["x", "yy", ""])),
    st.just((Report(model="m"),)),
    st.builds(fails, FAILURES),
)
WHOLE = st.lists(ACTS, max_size=4).map(lambda acts: [*acts, said("end"), done(Usage(1, 1))])
SCRIPTS = st.lists(st.one_of(WHOLE, st.lists(ACTS, max_size=4)), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@given(
    scripts=st.lists(SCRIPTS, min_size=2, max_size=4),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["unary", "stream"]),
            st.sampled_from([0.0, 0.1, 0.3]),
            st.sampled_from([None, 0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.2]),
        ),
        min_size=1,
        max_size=5,
    ),
    after=st.sampled_from([0.05, 0.1, 0.2, 0.5]),
    places=st.integers(1, 3),
    adaptive=st.sampled_from([None, 1]),
    recovery=st.sampled_from(StreamRecovery),
)
def test_a_hedged_call_ends_once_in_order_and_holds_nothing(
    scripts: list[list[Sequence[Act]]],
    calls: list[tuple[str, float, float | None]],
    after: float,
    places: int,
    adaptive: int | None,
    recovery: StreamRecovery,
) -> None:
    async def play() -> None:
        limits = Limits(max_concurrency=places, max_queue=2, queue_timeout=1.0)
        r = rig(
            *scripts,
            limits=limits,
            hedging=Hedging(after, 1.0),
            recovery=recovery,
            adaptive=adaptive,
            breaker=QUICK,
        )
        tasks = []
        for kind, pause, cancel_after in calls:
            task = asyncio.create_task(one(r, kind))
            tasks.append(task)
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            await asyncio.sleep(pause)
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()
        await asyncio.sleep(1.0)
        check(r)

    run_in_virtual_time(play())


async def one(r: Rig, kind: str) -> None:
    request = ask(routing=Routing(allow_failover=True))
    with contextlib.suppress(RouterError):
        if kind == "unary":
            result = await r.router.chat(request, invocation(30.0))
            assert result.trail.attempts[-1].outcome is Outcome.OK
            assert result.trail.attempts[-1].target == result.trail.target
            return
        events: list[StreamEvent] = []
        stream = r.router.stream(request, invocation(30.0))
        async with contextlib.aclosing(stream):
            async for event in stream:
                events.append(event)
                well_formed(events)
        assert isinstance(events[-1], Finished)
        trail = events[-1].trail
        assert (trail.attempts[-1].outcome, trail.attempts[-1].target) == (Outcome.OK, trail.target)


def well_formed(events: Sequence[StreamEvent]) -> None:
    assert isinstance(events[0], Started)
    if len(events) > 1:
        assert isinstance(events[-1], Delta | Reset | Finished)


def check(r: Rig) -> None:
    assert r.idle
    assert len(r.recorder.calls) == len(r.recorder.starts)
    assert len(r.recorder.attempts) == sum(len(call.attempts) for call in r.recorder.calls)
    for target in r.targets.values():
        assert target.breaker.admits, "every probe was given back, and every open period is over"
        assert 1 <= target.upstream.limiter.max_concurrency <= target.upstream.limiter.limits.max_concurrency
    for call in r.recorder.calls:
        lost = [a for a in call.attempts if a.error_reason == HEDGE_LOST]
        assert len(lost) <= 1, "one hedge at most"
        assert all(a.outcome is Outcome.CANCELLED for a in lost)
        assert sorted(a.start.number for a in call.attempts) == list(range(1, len(call.attempts) + 1))
        if call.error is None and not call.cancelled:
            assert call.attempts[-1].outcome is Outcome.OK
            assert [a.outcome for a in call.attempts].count(Outcome.OK) == 1
