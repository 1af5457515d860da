"""What comes by itself is given to who can take it at once, and everything stays in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import chain, repeat

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from router_server.core.errors import Outcome, RouterError
from router_server.core.results import Finished, Give, Started, StreamEvent
from router_server.core.types import Delta, DeltaKind, Routing, StreamRecovery, Usage
from tests.clock import virtual_time
from tests.core.scripted import Act, Rig, ask, done, fails, invocation, rig, said

WORDS = ["one", "two", "three", "four", "five", "six"]


def paced(words: Sequence[str], paces: Iterable[float] = ()) -> list[Act]:
    acts: list[Act] = []
    for word, pace in zip(words, chain(paces, repeat(0.1)), strict=False):
        acts += [said(word), pace] if pace else [said(word)]
    return acts


def shown(event: StreamEvent) -> str:
    return event.text if isinstance(event, Delta) else type(event).__name__


async def read(r: Rig, give: Give, routing: Routing | None = None) -> list[str]:
    """Read a stream, offering ``give`` from the first event on; return what was yielded."""
    yielded: list[str] = []
    offered: Give | None = None
    async with aclosing(r.router.stream(ask(routing=routing or Routing()), invocation())) as events:
        try:
            while True:
                yielded.append(shown(await events.asend(offered)))
                offered = give
        except StopAsyncIteration:
            return yielded


def taking(log: list[str], answers: Iterator[bool]) -> Callable[[StreamEvent], bool]:
    def give(event: StreamEvent) -> bool:
        if not next(answers, True):
            return False
        log.append(shown(event))
        return True

    return give


@virtual_time
async def test_what_comes_by_itself_is_given_and_not_yielded() -> None:
    r, taken = rig([[*paced(WORDS), done(Usage(3, 6))]]), list[str]()
    yielded = await read(r, taking(taken, iter(())))
    assert yielded == [Started.__name__, "one"]
    assert taken == [*WORDS[1:], Finished.__name__]
    assert r.idle


@virtual_time
async def test_what_comes_together_is_yielded() -> None:
    both = (*said("two"), *said("three", 1, DeltaKind.REASONING))
    r, taken = rig([[said("one"), 0.1, both, 0.1, said("four", 2), done()]]), list[str]()
    yielded = await read(r, taking(taken, iter(())))
    assert yielded == [Started.__name__, "one", "two", "three"]
    assert taken == ["four", Finished.__name__]


@virtual_time
async def test_what_is_not_taken_is_yielded() -> None:
    r = rig([[*paced(WORDS), done()]])
    assert await read(r, lambda _event: False) == [Started.__name__, *WORDS, Finished.__name__]


@virtual_time
async def test_who_cannot_take_it_meets_it_again_and_the_target_is_not_to_blame() -> None:
    def breaks(_event: StreamEvent) -> bool:
        raise ZeroDivisionError

    r = rig([[*paced(WORDS), done()]])
    assert await read(r, breaks) == [Started.__name__, *WORDS, Finished.__name__]
    assert [attempt.outcome for attempt in r.recorder.attempts] == [Outcome.OK]


@drawn(
    answers=st.lists(st.booleans(), max_size=8),
    paces=st.lists(st.sampled_from([0.0, 0.1]), max_size=6),
    pauses=st.lists(st.sampled_from([0.0, 0.1, 0.25]), max_size=4),
)
@virtual_time
async def test_the_order_is_the_upstreams_whatever_is_taken(
    answers: list[bool], paces: list[float], pauses: list[float]
) -> None:
    log: list[str] = []
    give = taking(log, iter(answers))
    left = iter(pauses)
    r = rig([[*paced(WORDS, paces), done()]])
    offered: Give | None = None
    async with aclosing(r.router.stream(ask(), invocation())) as events:
        try:
            while True:
                log.append(shown(await events.asend(offered)))
                offered = give
                await asyncio.sleep(next(left, 0.0))
        except StopAsyncIteration:
            pass
    assert "".join(log) == "".join([Started.__name__, *WORDS, Finished.__name__])


@pytest.mark.parametrize("routing", [Routing(heartbeat_interval=60.0), Routing(coalesce_window=0.01)])
@virtual_time
async def test_nothing_is_given_where_time_decides_what_leaves(routing: Routing) -> None:
    r, taken = rig([[*paced(WORDS), done()]]), list[str]()
    assert await read(r, taking(taken, iter(())), routing) == [Started.__name__, *WORDS, Finished.__name__]
    assert not taken


@virtual_time
async def test_a_break_is_told_after_what_was_given() -> None:
    r, taken = rig([[*paced(WORDS), fails(Outcome.UNAVAILABLE)]], retries=0), list[str]()
    with pytest.raises(RouterError):
        await read(r, taking(taken, iter(())), Routing(stream_recovery=StreamRecovery.NONE))
    assert taken == WORDS[1:]
    assert r.idle
