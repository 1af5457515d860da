"""A route that caches, with a fault in the answer that several callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelrouter.v1 import chat_pb2
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving, text_of
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply, sse_reply


@asynccontextmanager
async def cached(primary: Upstream, fallback: Upstream) -> AsyncIterator[Served]:
    keys = "kind: openai, api_key: k, retries: 0, health_check: null"
    text = f"""
        providers:
          a: {{{keys}, base_url: "{primary.base_url}"}}
          b: {{{keys}, base_url: "{fallback.base_url}"}}
        targets:
          a1: {{provider: a, model: model-a}}
          b1: {{provider: b, model: model-b}}
        routes:
          chat: {{targets: [a1], strategy: weighted, fallback: [b1], cache: {{ttl: 1h}}}}
    """
    async with serving(text) as served:
        yield served


def cold(**routing: object) -> chat_pb2.ChatRequest:
    return chat(generation={"temperature": 0}, routing=routing)


async def test_a_stream_that_may_start_over_does_not_end_by_one_that_may_not() -> None:
    breaks = asyncio.Event()
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), breaks, End.RESET))
        b.always(sse_reply(pieces("Hel", "lo")))
        async with cached(a, b) as served:
            strict = asyncio.ensure_future(
                fails(served.stub.StreamChat(cold(streamRecovery="STREAM_RECOVERY_NONE")))
            )
            await a.requested()
            lenient = asyncio.ensure_future(
                events_of(served.stub.StreamChat(cold(streamRecovery="STREAM_RECOVERY_RESTART")))
            )
            await until(lambda: len(a.requests) == 2)
            breaks.set()
            assert (await strict).reason == "STREAM_INTERRUPTED"
            events = await lenient
            assert [name for name, _event in events].count("reset") == 1
            assert text_of(events) == "Hello"
            assert events[-1][1].route.target == "b1"
            assert served.idle


async def test_a_call_with_a_fallback_does_not_end_by_one_that_wants_none() -> None:
    breaks = asyncio.Event()
    async with Upstream() as a, Upstream() as b:
        a.always(lambda _request: (breaks, *json_reply({"error": {"message": "no"}}, 503)))
        b.always(json_reply(answer()))
        async with cached(a, b) as served:
            strict = asyncio.ensure_future(fails(served.stub.Chat(cold(allowFailover=False))))
            await a.requested()
            lenient = asyncio.ensure_future(served.stub.Chat(cold()))
            await until(lambda: len(a.requests) == 2)
            breaks.set()
            assert (await strict).reason == "ALL_TARGETS_FAILED"
            assert (await lenient).route.target == "b1"
            assert served.idle
            again = await served.stub.Chat(cold(allowFailover=False))
            assert again.route.cache_hit, "what is kept is for all who ask the same"


async def test_callers_on_the_same_terms_share_one_rescue() -> None:
    breaks = asyncio.Event()
    async with Upstream() as a, Upstream() as b:
        a.always(lambda _request: (breaks, *json_reply({"error": {"message": "no"}}, 503)))
        b.always(json_reply(answer()))
        async with cached(a, b) as served:
            calls = [asyncio.ensure_future(served.stub.Chat(cold())) for _ in range(3)]
            replays = served.server.assembly.router.replays  # type: ignore[attr-defined]
            await until(lambda: [flight.waiting for flight in replays.flights] == [3])
            await a.requested()
            breaks.set()
            assert [call.route.target for call in await asyncio.gather(*calls)] == ["b1"] * 3
            assert (len(a.requests), len(b.requests)) == (1, 1)
            assert served.idle
