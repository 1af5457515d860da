"""Hedging and adaptive concurrency through the whole server, on real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.e2e.serving import Served, answer, chat, pieces, serving, two_targets
from tests.telemetry.collector import attributes, collector
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event, json_reply, sse_reply

PROMPTLY = 0.1
"""Seconds within which the loser's connection is closed."""

AFTER = 0.2
"""Seconds until the second target is asked."""

KINDS = pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])


def hedged(a: Upstream, b: Upstream, otlp: str = "null") -> str:
    text = two_targets(a, b, recovery=f"none, hedge: {{after: {AFTER}s, max_extra: 1.0}}")
    text = text.replace("unary: 1s", "unary: 15s").replace("first_token: 1s", "first_token: 15s")
    only_a = "only-a: {targets: [a1], stream_recovery: none"
    text = text.replace(f"{only_a}, hedge: {{after: {AFTER}s, max_extra: 1.0}}", only_a)
    return text + f"telemetry: {{otlp_endpoint: {otlp}}}\n"


def whole(streaming: bool) -> Reply:
    return sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer())


async def ask(served: Served, streaming: bool) -> tuple[Any, float]:
    """Make a call that must be answered whole; return who answered, and when the first word came."""
    if not streaming:
        response = await served.stub.Chat(chat(), timeout=10)
        return response.route, time.monotonic()
    came, messages = 0.0, []
    async for message in served.stub.StreamChat(chat(), timeout=10):
        came = came or time.monotonic()
        messages.append(message)
    assert "".join(m.delta.text for m in messages) == "Hello"
    return messages[-1].finished.route, came


@KINDS
async def test_the_second_answers_and_the_first_is_hung_up_on(streaming: bool) -> None:
    silence: Reply = (*SSE_HEAD, End.STALL) if streaming else (End.STALL,)
    async with collector() as otlp, Upstream() as a, Upstream() as b:
        a.always(silence)
        b.always(whole(streaming))
        async with serving(hedged(a, b, f"'{otlp.url}'")) as served:
            began = time.monotonic()
            route, came = await ask(served, streaming)
            async with asyncio.timeout(PROMPTLY):
                await a.connections[0].closed.wait()
            assert time.monotonic() - came < PROMPTLY
            assert came - began >= AFTER
            assert (route.target, [x.target for x in route.attempts]) == ("b1", ["a1", "b1"])
            assert served.idle
            assert served.breaker("a1") == "closed"
            assert (len(a.requests), len(b.requests)) == (1, 1)
    lost, won = otlp.span("chat model-a"), otlp.span("chat model-b")
    assert lost.parent_span_id == won.parent_span_id == otlp.span("route chat").span_id
    said = attributes(lost.attributes)
    assert (said["modelrouter.outcome"], said["modelrouter.attempt.error_reason"]) == (
        "cancelled",
        "hedge_lost",
    )
    assert said["gen_ai.usage.input_tokens"] > 0
    assert lost.end_time_unix_nano <= won.end_time_unix_nano


@KINDS
async def test_the_first_answers_after_all_and_the_second_is_hung_up_on(streaming: bool) -> None:
    asked = asyncio.Event()
    async with Upstream() as a, Upstream() as b:
        a.always((asked, *whole(streaming)))  # type: ignore[misc]
        b.always((End.STALL,))
        async with serving(hedged(a, b)) as served:
            call = asyncio.create_task(ask(served, streaming))
            await b.requested()
            asked.set()
            route, _came = await call
            async with asyncio.timeout(PROMPTLY):
                await b.connections[0].closed.wait()
            assert [x.target for x in route.attempts] == ["b1", "a1"]
            assert route.target == "a1"
            assert served.idle


async def test_a_caller_who_goes_away_hangs_up_on_both() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, End.STALL))
        b.always((*SSE_HEAD, End.STALL))
        async with serving(hedged(a, b)) as served:
            call = served.stub.StreamChat(chat(), timeout=10)
            await b.requested()
            call.cancel()
            async with asyncio.timeout(1.0):
                await a.connections[0].closed.wait()
                await b.connections[0].closed.wait()
            assert (served.breaker("a1"), served.breaker("b1")) == ("closed", "closed")


async def test_who_has_begun_to_answer_is_waited_for() -> None:
    more = asyncio.Event()
    first, *rest = pieces("Hel", "lo")
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(first), more, *map(event, rest), End.CLOSE))
        async with serving(hedged(a, b)) as served:
            call = asyncio.create_task(ask(served, streaming=True))
            await a.requested()
            asyncio.get_running_loop().call_later(2 * AFTER, more.set)
            route, _came = await call
            assert [x.target for x in route.attempts] == ["a1"]
            assert b.requests == []


async def test_refusals_lower_the_limit_that_metrics_show() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "30"}))
        b.always(json_reply(answer()))
        extra = ", max_concurrency: 20, adaptive: {min: 4}"
        async with serving(two_targets(a, b, extra=extra)) as served:
            response = await served.stub.Chat(chat(), timeout=10)
            assert response.route.target == "b1"
            limits = {one.provider: one.concurrency_limit for one in served.server.assembly.snapshot()}
            assert limits == {"a": 10, "b": 64}
