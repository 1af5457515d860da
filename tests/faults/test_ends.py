"""One target has failed already when the deadline passes, the caller goes away, or the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import pytest

from modelrouter import AsyncClient, DeadlineExceeded, StreamInterrupted
from tests.e2e.phases import Passed, until
from tests.e2e.serving import Served, serving
from tests.e2e.test_caller_errors import deaf_port
from tests.faults.faults import cut, whole
from tests.faults.stage import OF_FALLBACK, OF_PRIMARY, complaints_about, together, told
from tests.faults.wires import GEMINI, OPENAI, Wire, events, provider_keys
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event

DEADLINE = 2.0
PROMPTLY = 10.0
"""Seconds; whatever else would end a call here takes fifteen."""

WIRES = pytest.mark.parametrize("wire", [OPENAI, GEMINI], ids=lambda wire: wire.kind)


@dataclass
class Scene:
    """A primary that fails, a fallback in which the call then waits, and the mark that it got there."""

    wire: Wire
    served: Served
    client: AsyncClient
    primary: Upstream
    fallback: Upstream
    passed: Passed

    def call(self, way: str, **options: Any) -> Awaitable[Any]:
        """Make a call to the route."""
        if way == "stream":
            return self.client.stream_chat("Hi", **options).result()
        return self.client.chat("Hi", **options)


@asynccontextmanager
async def scene(wire: Wire, *, deaf: bool = False, keys: str = "") -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Upstream())
        fallback = await stack.enter_async_context(Upstream())
        fallback_keys = provider_keys(wire, fallback)
        if deaf:
            port = stack.enter_context(deaf_port())
            fallback_keys = fallback_keys.replace(fallback.base_url, f"http://127.0.0.1:{port}/v1")
        # A single failure that is held against the fallback opens its breaker.
        strict = ", retries: 0, health_check: null, breaker: {failure_threshold: 1}, timeouts: {connect: 15s}"
        text = f"""
            providers:
              primary: {{{provider_keys(wire, primary)}, retries: 0, health_check: null}}
              fallback: {{{fallback_keys}{strict}{keys}}}
            targets:
              a1: {{provider: primary, model: primary}}
              b1: {{provider: fallback, model: fallback}}
            routes:
              chat: {{targets: [a1, b1]}}
              only-b: {{targets: [b1]}}
            telemetry: {{log: {{level: error}}}}
        """
        served = await stack.enter_async_context(serving(dedent(text)))
        client = await stack.enter_async_context(AsyncClient(served.target, max_attempts=1))
        yield Scene(wire, served, client, primary, fallback, Passed())


def _refuses(it: Scene) -> Reply:
    return it.wire.refusal(500)


def _cuts(it: Scene) -> Reply:
    return cut(it.wire, OF_PRIMARY, 10)


def _silence(_it: Scene) -> Reply:
    return (End.STALL,)


def _headers(it: Scene) -> Reply:
    return (*SSE_HEAD, it.passed, End.STALL)


def _words(it: Scene) -> Reply:
    return (*SSE_HEAD, *map(event, events(it.wire, OF_FALLBACK)[:3]), it.passed, End.STALL)


async def _asked(it: Scene) -> None:
    await it.fallback.requested()


async def _sent(it: Scene) -> None:
    await until(it.passed.is_set)
    # What was sent is in the kernel; the router shares this loop and reads it in one of its next turns.
    await asyncio.sleep(0.02)


async def _connecting(it: Scene) -> None:
    await until(lambda: it.served.limiter("fallback").inflight == 1)
    await asyncio.sleep(0.02)


async def _queued(it: Scene) -> None:
    await until(lambda: it.served.limiter("fallback").queued == 1)


@dataclass(frozen=True)
class Phase:
    """Where a call waits in the fallback: what both upstreams do, and the phase that a deadline names."""

    name: str
    named: str
    primary: Callable[[Scene], Reply]
    fallback: Callable[[Scene], Reply]
    reached: Callable[[Scene], Awaitable[None]]
    ways: tuple[str, ...] = ("stream", "unary")


PHASES = [
    Phase("queue", "queue", _refuses, _silence, _queued),
    Phase("connect", "connect", _refuses, _silence, _connecting),
    Phase("headers", "first_token", _refuses, _silence, _asked),
    Phase("first-token", "first_token", _refuses, _headers, _sent, ("stream",)),
    Phase("stream", "stream", _refuses, _words, _sent, ("stream",)),
    Phase("connect-after-a-cut", "stream", _cuts, _silence, _connecting, ("stream",)),
    Phase("first-token-after-a-cut", "stream", _cuts, _headers, _sent, ("stream",)),
    Phase("restarted-stream", "stream", _cuts, _words, _sent, ("stream",)),
]

CASES = pytest.mark.parametrize(
    ("phase", "way"),
    [pytest.param(phase, way, id=f"{phase.name}-{way}") for phase in PHASES for way in phase.ways],
)


@asynccontextmanager
async def waiting_in(phase: Phase, wire: Wire) -> AsyncIterator[Scene]:
    """The scene of a phase: in the queue another call holds the only permit, to connect there is nobody."""
    one = ", max_concurrency: 1" if phase.name == "queue" else ""
    async with scene(wire, deaf=phase.name.startswith("connect"), keys=one) as it:
        it.primary.always(phase.primary(it))
        it.fallback.always(phase.fallback(it))
        if phase.name != "queue":
            yield it
            return
        holder = asyncio.ensure_future(it.call("unary", model="only-b"))
        await it.fallback.requested()
        yield it
        holder.cancel()
        await asyncio.wait({holder})


async def assert_nothing_is_left(it: Scene, phase: Phase) -> None:
    held = int(phase.name == "queue")
    await until(
        lambda: (it.served.limiter("fallback").inflight, it.served.limiter("fallback").queued) == (held, 0)
    )
    await until(lambda: it.served.limiter("primary").inflight == 0)
    if not held:
        async with asyncio.timeout(PROMPTLY):
            await asyncio.gather(*(connection.closed.wait() for connection in it.fallback.connections))
    assert it.served.breaker("b1") == "closed", "the caller's haste is not the upstream's fault"


async def assert_well(it: Scene, way: str) -> None:
    it.primary.always(whole(it.wire, OF_PRIMARY))
    seen = await told(it.call(way, timeout=PROMPTLY))
    assert seen.answer is not None, seen.error
    assert not complaints_about(seen.answer)
    assert seen.attempts == ("a1 ok",)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
async def test_the_deadline_passes_in_the_fallback(phase: Phase) -> None:
    calls = [_until_the_deadline(phase, way, wire) for way in phase.ways for wire in (OPENAI, GEMINI)]
    await together(*calls)


async def _until_the_deadline(phase: Phase, way: str, wire: Wire) -> None:
    async with waiting_in(phase, wire) as it:
        seen = await told(it.call(way, timeout=DEADLINE))
        assert isinstance(seen.error, DeadlineExceeded)
        assert seen.error.phase == phase.named, "the server said so, before the client's own timer"
        assert seen.attempts[0] == "a1 unavailable"
        assert bool(seen.error.partial) is (phase.named == "stream")
        await assert_nothing_is_left(it, phase)
        await assert_well(it, way)


@WIRES
@CASES
async def test_the_caller_leaves_in_the_fallback(phase: Phase, way: str, wire: Wire) -> None:
    async with waiting_in(phase, wire) as it:
        call = asyncio.ensure_future(it.call(way))
        await phase.reached(it)
        asked = len(it.primary.requests), len(it.fallback.requests)
        call.cancel()
        async with asyncio.timeout(PROMPTLY):
            await asyncio.wait({call})
            await assert_nothing_is_left(it, phase)
        assert (len(it.primary.requests), len(it.fallback.requests)) == asked, "nobody asks for who is gone"
        await assert_well(it, way)


@asynccontextmanager
async def draining(it: Scene, delay: float, grace: float) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(it.served.server.rpc.drain(delay, grace))
    yield task
    async with asyncio.timeout(grace + 5):
        await task


@WIRES
@pytest.mark.parametrize("after", [0, 10])
async def test_a_fault_in_a_drain_is_rescued(after: int, wire: Wire) -> None:
    gate, said = asyncio.Event(), events(wire, OF_PRIMARY)[:after]
    async with scene(wire) as it:
        it.primary.always((*SSE_HEAD, *map(event, said), it.passed, gate, End.RESET))
        it.fallback.always(whole(wire, OF_FALLBACK))
        call = asyncio.ensure_future(told(it.call("stream")))
        await _sent(it)
        async with draining(it, 0.0, 20.0) as drain:
            await _refusing(it)
            gate.set()
            seen = await call
            assert seen.answer is not None, seen.error
            assert not complaints_about(seen.answer)
            assert seen.attempts[-1] == "b1 ok"
            async with asyncio.timeout(5):
                await drain


async def _refusing(it: Scene) -> None:
    """Wait until the server takes no new calls."""

    async def refused() -> bool:
        async with AsyncClient(it.served.target, max_attempts=1) as client:
            return (await told(client.chat("Hi", model="only-b", timeout=1))).answer is None

    async with asyncio.timeout(5):
        while not await refused():  # noqa: ASYNC110 - a server has no event for it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["stream", "unary"])
async def test_before_a_drain_begins_in_earnest_faults_are_rescued_as_ever(way: str) -> None:
    async with scene(OPENAI) as it:
        it.primary.always(OPENAI.refusal(503))
        it.fallback.always(whole(OPENAI, OF_FALLBACK))
        async with draining(it, 1.0, 5.0):
            seen = await told(it.call(way))
            assert seen.answer is not None, seen.error
            assert not complaints_about(seen.answer)


@pytest.mark.parametrize("phase", PHASES[2:5] + PHASES[6:], ids=lambda phase: phase.name)
async def test_a_drain_that_runs_out_in_the_fallback_says_so(phase: Phase) -> None:
    await together(_drained_in(phase, OPENAI), _drained_in(phase, GEMINI))


async def _drained_in(phase: Phase, wire: Wire) -> None:
    async with waiting_in(phase, wire) as it:
        call = asyncio.ensure_future(told(it.call("stream")))
        await phase.reached(it)
        async with draining(it, 0.0, 0.6):
            seen = await call
            assert isinstance(seen.error, StreamInterrupted)
            assert seen.error.reason == "STREAM_INTERRUPTED"
            assert bool(seen.error.partial) is (phase.named == "stream")
        await assert_nothing_is_left(it, phase)
