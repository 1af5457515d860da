"""Every place where a call can wait, and how to bring one there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.e2e.serving import Served, pieces
from tests.upstream import SSE_HEAD, End, Steps, Upstream, event, head, json_reply

Way = Literal["cancel", "deadline", "channel"]
"""How a caller goes away."""


class Passed(asyncio.Event):
    """A step of a reply that waits for nothing, and tells that the steps before it are done."""

    async def wait(self) -> Literal[True]:
        """Go on."""
        self.set()
        return True


@dataclass
class Scene:
    """One call that waits somewhere, and what is around it."""

    served: Served
    upstream: Upstream
    call: Any
    streaming: bool
    passed: list[Passed] = field(default_factory=list)

    async def first_delta(self) -> None:
        """Read the stream up to its first delta."""
        for expected in ("started", "delta"):
            assert (await self.call.read()).WhichOneof("event") == expected


Script = tuple[Steps, list[Passed]]
"""What the upstream does, and the marks in it."""


@dataclass(frozen=True)
class Phase:
    """Where a call waits when its caller goes away.

    ``reached`` returns once it waits there. ``outcome`` is what the attempt's span says, also at the
    deadline unless ``outcome_at_deadline`` says otherwise; ``usage`` that it tells of tokens. ``connected``
    is whether a connection to the upstream is open then; ``healthy`` the target that answers afterwards.
    """

    name: str
    reached: Callable[[Scene], Awaitable[None]]
    script: Callable[[bool], Script]
    outcome: str = "cancelled"
    outcome_at_deadline: str = "timeout"
    ways: tuple[Way, ...] = ("cancel", "deadline", "channel")
    kinds: tuple[str, ...] = ("unary", "stream")
    usage: bool = False
    connected: bool = True
    keys: str = ""
    failures: int = 0
    healthy: str = "a1"


async def until(true: Callable[[], bool]) -> None:
    """Wait until ``true`` returns True."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


async def _queued(scene: Scene) -> None:
    await until(lambda: scene.served.limiter("a").queued == 1)


async def _connecting(scene: Scene) -> None:
    await until(lambda: scene.served.limiter("a").inflight == 1)
    await asyncio.sleep(0.02)


async def _asked(scene: Scene) -> None:
    await scene.upstream.requested()


async def _sent(scene: Scene) -> None:
    await until(scene.passed[0].is_set)
    # What was sent is in the kernel; the router shares this loop and reads it in one of its next turns.
    await asyncio.sleep(0.02)


async def _midway(scene: Scene) -> None:
    await (scene.first_delta() if scene.streaming else _sent(scene))


async def _blocked(scene: Scene) -> None:
    """The upstream can send no more, since the router does not read, since its caller does not."""
    await scene.first_delta()
    before = -1
    while before != (now := sum(mark.is_set() for mark in scene.passed)):
        before = now
        await asyncio.sleep(0.1)
    assert not scene.passed[-1].is_set(), "all of it was taken"


async def _between_attempts(scene: Scene) -> None:
    await scene.upstream.requested()
    await until(lambda: scene.served.idle)
    assert not scene.call.done()


def _silence(_streaming: bool) -> Script:
    return (End.STALL,), []


def _headers(streaming: bool) -> Script:
    mark = Passed()
    first = SSE_HEAD if streaming else (head(200, {"Content-Length": "100"}),)
    return (*first, mark, End.STALL), [mark]


def _a_part(streaming: bool) -> Script:
    mark = Passed()
    if streaming:
        return (*SSE_HEAD, event(pieces("Hel", finish=None)[0]), mark, End.STALL), [mark]
    return (head(200, {"Content-Length": "100"}) + b'{"id": "c1", ', mark, End.STALL), [mark]


def _too_much(_streaming: bool) -> Script:
    """64 MB, more than all the buffers on the way hold."""
    piece = event(pieces("x" * 65_536, finish=None)[0])
    marks = [Passed() for _ in range(1_000)]
    return (*SSE_HEAD, *(step for mark in marks for step in (piece, mark))), marks


def _refusing(status: int, **headers: str) -> Callable[[bool], Script]:
    steps = json_reply({"error": {"message": "no"}}, status, headers)
    return lambda _streaming: (steps, [])


PHASES = [
    Phase(
        "queue",
        _queued,
        _silence,
        outcome_at_deadline="saturated",
        connected=False,
        keys=", max_concurrency: 1",
    ),
    Phase("connect", _connecting, _silence, connected=False, healthy="b1"),
    Phase("headers", _asked, _silence),
    Phase("first token", _sent, _headers),
    Phase("midway", _midway, _a_part, usage=True),
    Phase("slow reader", _blocked, _too_much, usage=True, kinds=("stream",)),
    # No deadline ends these: a wait that it would cut short is not begun.
    Phase(
        "backoff",
        _between_attempts,
        _refusing(503),
        outcome="unavailable",
        ways=("cancel", "channel"),
        connected=False,
        keys=", retries: 10",
        failures=1,
    ),
    Phase(
        "cooling",
        _between_attempts,
        _refusing(429, **{"Retry-After": "5"}),
        outcome="rate_limited",
        ways=("cancel", "channel"),
        connected=False,
        healthy="b1",
    ),
]
