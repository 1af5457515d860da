"""A stream is read one by one at first, and what follows is handed over with the same limits on time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.outbox import LIMIT, TAKEN
from router_server.core.provider import Take, UpstreamChat
from router_server.core.results import Finished
from router_server.core.types import Delta, Routing, StreamItem, StreamRecovery, Usage
from tests.clock import virtual_time
from tests.core.scripted import Act, Rig, ScriptedProvider, ask, collect, done, fails, invocation, rig, said

RESTART = Routing(stream_recovery=StreamRecovery.RESTART)


@dataclass
class HandingOver(ScriptedProvider):
    """Hands over whatever it may, and remembers how much of it was refused."""

    handed: int = 0
    refused: list[float] = field(default_factory=list)

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], Take | None]:
        take: Take | None = None
        async for items in super().stream(call):
            if take is None:
                take = yield items
                continue
            self.handed += 1
            if not take(items):
                self.refused.append(asyncio.get_running_loop().time())
                take = yield ()


def handing(*scripts: Sequence[Sequence[Act]], **more: object) -> tuple[Rig, HandingOver]:
    """Return a rig whose first provider hands over what it may."""
    made = rig(*scripts, **more)  # type: ignore[arg-type]
    first = HandingOver(scripts=list(scripts[0]))
    made.providers["a"] = made.upstreams["a"].provider = first
    return made, first


def text_of(events: Sequence[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@virtual_time
async def test_what_follows_the_first_delta_is_handed_over() -> None:
    made, provider = handing([[said("a"), 1.0, said("b"), 1.0, said("c"), 1.0, done(Usage(3, 2))]])
    events = await collect(made.router.stream(ask(), invocation()))
    assert text_of(events) == "abc"
    assert isinstance(events[-1], Finished)
    assert provider.handed == 3
    record = made.recorder.attempts[0]
    assert (record.outcome, record.time_per_token, record.usage) == (Outcome.OK, 3.0, Usage(3, 2))
    assert made.idle


@virtual_time
async def test_silence_after_what_was_handed_over_is_a_timeout() -> None:
    script: Sequence[Act] = [said("a"), 4.0, said("b"), 4.0, said("c"), 60.0, done()]
    made, provider = handing([script], [[said("whole"), done()]], timeouts=Timeouts(idle=5.0))
    events = await collect(made.router.stream(ask(routing=RESTART), invocation()))
    assert text_of(events) == "abcwhole"
    assert provider.handed == 2
    assert made.recorder.attempts[0].error_reason == "idle_timeout"
    assert made.recorder.attempts[0].duration == 13.0
    assert made.idle


@virtual_time
async def test_what_is_handed_over_may_be_malformed_or_fail() -> None:
    for last in ([(*done(), *said("after"))], [fails(Outcome.UNAVAILABLE)]):
        made, _ = handing([[said("a"), 1.0, said("b"), *last]], [[said("whole"), done()]], retries=0)
        events = await collect(made.router.stream(ask(routing=RESTART), invocation()))
        assert text_of(events) == "abwhole"
        assert made.idle


@virtual_time
async def test_a_slow_reader_is_handed_no_more_than_fits_and_the_rest_when_it_takes() -> None:
    piece = "x" * 50_000
    made, provider = handing([[*[said(piece)] * 20, done()]])
    events = made.router.stream(ask(), invocation())
    await anext(events)
    await asyncio.sleep(30)
    held = provider.handed * len(piece)
    assert LIMIT < held < LIMIT + TAKEN + 2 * len(piece)
    refused = len(provider.refused)
    assert refused
    assert text_of([event async for event in events]) == piece * 20
    assert len(provider.refused) > refused
    assert made.recorder.attempts[0].outcome is Outcome.OK, "a slow reader is no slow upstream"
    assert made.idle


@virtual_time
async def test_the_deadline_ends_what_is_handed_over() -> None:
    pace: list[Act] = [1.0, said("b")]
    made, provider = handing([[said("a"), *pace * 60, done()]], timeouts=Timeouts(idle=5.0))
    with pytest.raises(RouterError) as caught:
        await collect(made.router.stream(ask(), invocation(10.0)))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert asyncio.get_running_loop().time() == 9.95
    assert provider.handed == 9
    assert made.idle
