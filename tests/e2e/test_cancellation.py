"""A caller goes away, at every point where a call can wait: nothing stays behind, and nobody is blamed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil
import pytest
from grpc import aio

from modelrouter.v1 import embed_pb2, service_pb2_grpc
from tests.e2e.phases import PHASES, Phase, Scene, Way, until
from tests.e2e.serving import Served, answer, chat, events_of, pieces, serving, text_of, two_targets
from tests.e2e.test_caller_errors import deaf_port
from tests.telemetry.collector import Collector, attributes, collector
from tests.upstream import End, Upstream, json_reply, sse_reply

PROMPTLY = 5.0
"""Seconds. On an idle machine it takes milliseconds; whatever else would end the call takes fifteen."""

DEADLINE = 0.7
"""Seconds; long enough for a call to come where it shall wait, on a busy machine too."""

CASES = [
    pytest.param(phase, way, kind, id=f"{phase.name} {way} {kind}".replace(" ", "-"))
    for phase in PHASES
    for way in phase.ways
    for kind in phase.kinds
]


@pytest.mark.parametrize(("phase", "way", "kind"), CASES)
async def test_nothing_stays_behind(phase: Phase, way: Way, kind: str) -> None:
    streaming = kind == "stream"
    steps, passed = phase.script(streaming)
    async with around(phase) as (served, a, b, otlp):
        a.always(steps)
        async with holding(phase, served, a), another_channel(served) as channel:
            sockets = connections()
            call = begin(channel, "StreamChat" if streaming else "Chat", way)
            await phase.reached(Scene(served, a, call, streaming, passed))
            asked, held = len(a.requests), phase.name == "queue"
            await leave(way, call, channel)
            async with asyncio.timeout(PROMPTLY):
                if phase.connected:
                    await a.connections[0].closed.wait()
                await until(lambda: (served.limiter("a").inflight, served.limiter("a").queued) == (held, 0))
                await until(lambda: phase.name != "connect" or connections() <= sockets)
            assert len(a.requests) == asked, "nobody asks again for a caller who is gone"
        assert served.breaker("a1") == "closed"
        await answers_at_once(served, {"a1": a, "b1": b}[phase.healthy], phase.healthy)
    assert_traced(otlp, phase, way, streaming=streaming)


async def test_an_embedding_is_cancelled_between_its_batches() -> None:
    """The provider takes 2,048 inputs at once, and so does a call; a refused batch is asked one by one."""
    async with Upstream() as a, Upstream() as b:
        a.then(json_reply({"error": {"message": "no"}}, 400)).always((End.STALL,))
        text = two_targets(a, b).replace("unary: 1s", "unary: 60s")
        async with serving(text) as served:
            inputs = [embed_pb2.EmbedInput(text=text) for text in ("a", "b")]
            call = served.stub.Embed(embed_pb2.EmbedRequest(model="only-a", inputs=inputs))
            await a.requested(2)
            call.cancel()
            async with asyncio.timeout(PROMPTLY):
                await a.connections[-1].closed.wait()
                await until(lambda: served.idle)
            assert served.breaker("a1") == "closed"
            assert len(a.requests) == 2


@asynccontextmanager
async def around(phase: Phase) -> AsyncIterator[tuple[Served, Upstream, Upstream, Collector]]:
    """A server, its upstreams and its collector, which has all spans once the server has ended."""
    async with collector() as otlp, Upstream() as a, Upstream() as b, AsyncExitStack() as stack:
        breaker = f", breaker: {{failure_threshold: {phase.failures + 1}}}"
        text = two_targets(a, b, extra=phase.keys + breaker)
        text = text.replace("connect: 1s, first_token: 1s, idle: 1s, unary: 1s", "connect: 15s, unary: 15s")
        text += f"telemetry: {{otlp_endpoint: '{otlp.url}', log: {{format: json}}}}\n"
        if phase.name == "connect":
            deaf = stack.enter_context(deaf_port())
            text = text.replace(a.base_url, f"http://127.0.0.1:{deaf}/v1")
        async with serving(text) as served:
            yield served, a, b, otlp


@asynccontextmanager
async def holding(phase: Phase, served: Served, a: Upstream) -> AsyncIterator[None]:
    """Another call has the only permit, where the phase is about waiting for it."""
    if phase.name != "queue":
        yield
        return
    holder = served.stub.Chat(chat("only-a"))
    await a.requested()
    yield
    assert not holder.done()
    holder.cancel()
    await until(lambda: served.idle)


@asynccontextmanager
async def another_channel(served: Served) -> AsyncIterator[aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(served.target, options=options) as channel:
        await channel.channel_ready()
        yield channel


def begin(channel: aio.Channel, method: str, way: Way) -> Any:
    stub = service_pb2_grpc.ModelRouterServiceStub(channel)
    timeout = DEADLINE if way == "deadline" else 60
    return getattr(stub, method)(chat("only-a"), timeout=timeout, metadata=(("x-request-id", "victim"),))


async def leave(way: Way, call: Any, channel: aio.Channel) -> None:
    if way == "cancel":
        call.cancel()
    elif way == "channel":
        await channel.close(None)
    with contextlib.suppress(asyncio.CancelledError, aio.AioRpcError):
        await call.wait_for_connection()
    async with asyncio.timeout(DEADLINE + PROMPTLY):
        assert (await call.code()).name == ("DEADLINE_EXCEEDED" if way == "deadline" else "CANCELLED")


def connections() -> int:
    """How many TCP connections this process has, or is making."""
    return len(psutil.Process().net_connections("tcp4"))


async def answers_at_once(served: Served, upstream: Upstream, target: str) -> None:
    request = chat(routing={"allowedTargets": [target]})
    upstream.always(json_reply(answer()))
    response = await served.stub.Chat(request, timeout=PROMPTLY)
    assert [attempt.target for attempt in response.route.attempts] == [target]
    upstream.always(sse_reply(pieces("Hel", "lo")))
    events = await events_of(served.stub.StreamChat(request, timeout=PROMPTLY))
    assert text_of(events) == "Hello"


def assert_traced(otlp: Collector, phase: Phase, way: Way, *, streaming: bool) -> None:
    [rpc] = [s for s in otlp.spans if attributes(s.attributes).get("modelrouter.request.id") == "victim"]
    code = attributes(rpc.attributes)["rpc.response.status_code"]
    family = {span.name: attributes(span.attributes) for span in otlp.spans if span.trace_id == rpc.trace_id}
    cancelled = family["route only-a"].get("modelrouter.call.cancelled", False)
    # A busy machine may be 35 ms late: then the caller's timer rings before ours, and cancels the call.
    assert cancelled or way == "deadline"
    codes = {"CANCELLED", "DEADLINE_EXCEEDED"} if way == "deadline" else {"CANCELLED"}
    assert code in (codes if cancelled else {"DEADLINE_EXCEEDED"})
    attempt = family["chat model-a"]
    assert attempt["modelrouter.outcome"] == (phase.outcome if cancelled else phase.outcome_at_deadline)
    tokens = attempt.get("gen_ai.usage.output_tokens", 0)
    assert (tokens > 0) is (phase.usage and streaming), "what was used is told, as far as anybody knows"
