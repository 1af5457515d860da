"""Several callers of one answer, through the whole server: time, heartbeats and costs are each one's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelrouter.v1 import chat_pb2
from router_server.auth.api_keys import hash_of
from router_server.core.flight import HELD
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving, text_of
from tests.e2e.test_budgets import spent
from tests.upstream import SSE_HEAD, Steps, Upstream, event, json_reply, sse_reply

STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
ONE, TWO = (("x-api-key", "one"),), (("x-api-key", "two"),)
COST = 3 * 1_000 + 2 * 1_000
"""Nano-USD of an answer: its tokens, at 1 USD per million."""


@asynccontextmanager
async def shared(upstream: Upstream, **of_one: Any) -> AsyncIterator[Served]:
    """A route whose answers all keys share; ``of_one`` are limits or a budget of the first of two."""
    keys = [{"name": "one", "sha256": hash_of("one"), **of_one}, {"name": "two", "sha256": hash_of("two")}]
    text = f"""
        providers:
          a: {{kind: openai, api_key: k, base_url: "{upstream.base_url}", health_check: null, retries: 0}}
        targets: {{a1: {{provider: a, model: m, max_output_tokens: 50, price: {{input: 1, output: 1}}}}}}
        routes: {{chat: {{targets: [a1], cache: {{across_keys: true}}}}, plain: {{targets: [a1]}}}}
        auth: {{api_keys: {json.dumps(keys)}}}
    """
    async with serving(text) as served:
        yield served


def in_two(go_on: asyncio.Event, *, streaming: bool) -> Steps:
    if not streaming:
        return (go_on, *json_reply(answer()))
    first, *rest = pieces("Hel", "lo")
    return (*SSE_HEAD, event(first), go_on, *sse_reply(rest)[1:])


def cold(**routing: Any) -> chat_pb2.ChatRequest:
    return chat(generation={"temperature": 0}, routing=routing)


def call(served: Served, request: chat_pb2.ChatRequest, *, streaming: bool, **how: Any) -> Any:
    return (served.stub.StreamChat if streaming else served.stub.Chat)(request, **how)


async def text(call: Any) -> str:
    if hasattr(call, "__aiter__"):
        return text_of(await events_of(call))
    return str((await call).message.content[0].text)


async def waiting(served: Served, *numbers: int) -> None:
    replays = served.server.assembly.router._router.replays  # type: ignore[attr-defined]
    await until(lambda: tuple(flight.waiting for flight in replays.flights) == numbers)


@pytest.mark.parametrize("by_key", [False, True], ids=["cached", "idempotent"])
@STREAMING
async def test_the_deadline_of_who_asked_first_is_nobody_else_s(streaming: bool, by_key: bool) -> None:
    go_on = asyncio.Event()
    request = chat("plain", idempotencyKey="k") if by_key else cold()
    async with Upstream() as a:
        a.always(in_two(go_on, streaming=streaming))
        async with shared(a) as served:
            first = asyncio.ensure_future(
                fails(call(served, request, streaming=streaming, metadata=ONE, timeout=1.0))
            )
            await a.requested()
            others = [
                asyncio.ensure_future(
                    text(call(served, request, streaming=streaming, metadata=ONE, timeout=seconds))
                )
                for seconds in (20.0, 30.0)
            ]
            await waiting(served, 3)
            failure = await first
            assert (failure.code, failure.metadata["phase"]) == (
                "DEADLINE_EXCEEDED",
                "stream" if streaming else "first_token",
            )
            go_on.set()
            assert set(await asyncio.gather(*others)) == {"Hello"}
            assert len(a.requests) == 1
            assert served.idle


@STREAMING
async def test_nobody_waits_and_the_upstream_is_left(streaming: bool) -> None:
    async with Upstream() as a:
        a.always(in_two(asyncio.Event(), streaming=streaming))
        async with shared(a) as served:
            calls = [call(served, cold(), streaming=streaming, metadata=key) for key in (ONE, TWO)]
            for one in calls:
                asyncio.ensure_future(text(one)).add_done_callback(lambda done: done.cancelled())
            await a.requested()
            await waiting(served, 2)
            calls[0].cancel()
            await waiting(served, 1)
            assert not a.connections[0].closed.is_set()
            calls[1].cancel()
            await a.connections[0].closed.wait()
            await waiting(served)
            assert served.idle


async def test_who_joins_has_heartbeats_although_the_first_wanted_none() -> None:
    go_on = asyncio.Event()
    async with Upstream() as a:
        a.always(in_two(go_on, streaming=True))
        async with shared(a) as served:
            first = asyncio.ensure_future(events_of(served.stub.StreamChat(cold(), metadata=ONE)))
            await a.requested()
            second = served.stub.StreamChat(cold(heartbeatInterval="0.1s"), metadata=TWO)
            assert (await read_up_to(second, "heartbeat", 2))[:2] == ["started", "delta"]
            go_on.set()
            await read_up_to(second, "finished")
            assert "heartbeat" not in [name for name, _event in await first]
            assert len(a.requests) == 1


@STREAMING
async def test_it_is_settled_to_who_asked_where_that_one_leaves_alone(streaming: bool) -> None:
    async with Upstream() as a:
        a.always(in_two(asyncio.Event(), streaming=streaming))
        async with shared(a, limits={"tokens_per_minute": 500}, budget={"daily_usd": 1}) as served:
            first = call(served, cold(), streaming=streaming, metadata=ONE)
            if streaming:
                await read_up_to(first, "delta")
            else:
                asyncio.ensure_future(text(first)).add_done_callback(lambda done: done.cancelled())
                await a.requested()
            await waiting(served, 1)
            first.cancel()
            await until(lambda: served.idle)
            used = 2 if streaming else 1
            assert await left(served) == 500 - used
            assert await spent(served, "key/one") == used * 1_000


async def read_up_to(stream: Any, last: str, count: int = 1) -> list[str]:
    """Read until so many events of that name came; return the names of all."""
    names: list[str] = []
    async with asyncio.timeout(20):
        while names.count(last) < count:
            names.append((await stream.read()).WhichOneof("event"))
    return names


@STREAMING
async def test_it_is_settled_when_it_ends_and_not_when_the_first_one_leaves(streaming: bool) -> None:
    go_on = asyncio.Event()
    async with Upstream() as a:
        a.always(in_two(go_on, streaming=streaming))
        async with shared(a, limits={"tokens_per_minute": 500}) as served:
            first = call(served, cold(), streaming=streaming, metadata=ONE)
            asyncio.ensure_future(text(first)).add_done_callback(lambda done: done.cancelled())
            await a.requested()
            second = asyncio.ensure_future(text(call(served, cold(), streaming=streaming, metadata=TWO)))
            await waiting(served, 2)
            first.cancel()
            await waiting(served, 1)
            assert await left(served) == 500 - 51, "still reserved, as the call still runs"
            go_on.set()
            assert await second == "Hello"
            await until(lambda: served.idle)
            assert await left(served) == 500 - 5, "5 tokens were used, by the key that asked"


async def left(served: Served) -> int:
    """Return what the first key has left; the call that asks for it is given back."""
    asking = served.stub.Chat(chat("plain", routing={"allowedTargets": ["none"]}), metadata=ONE)
    await fails(asking)
    trailers = dict(await asking.trailing_metadata())
    assert trailers["x-ratelimit-resource"] == "caller tokens_per_minute"
    return int(trailers["x-ratelimit-remaining"])


async def test_one_key_s_budget_is_not_what_another_key_s_call_ends_by() -> None:
    go_on = asyncio.Event()
    async with Upstream() as a:
        a.always(lambda _request: in_two(go_on, streaming=False))
        async with shared(a, budget={"daily_usd": 0.000051}) as served:
            first = asyncio.ensure_future(text(served.stub.Chat(cold(), metadata=ONE)))
            await a.requested()
            second = asyncio.ensure_future(text(served.stub.Chat(cold(), metadata=TWO)))
            await a.requested(2)
            go_on.set()
            assert set(await asyncio.gather(first, second)) == {"Hello"}
            assert await spent(served, "key/one") == COST
            refused = await fails(served.stub.Chat(chat(), metadata=ONE))
            assert refused.reason == "BUDGET_EXCEEDED"
            again = await served.stub.Chat(cold(), metadata=ONE)
            assert (again.route.cache_hit, again.usage.cost_nano_usd) == (True, 0), (
                "what is kept costs nothing"
            )


PIECE = 64 * 1024
PIECES = 256
"""16 MiB: more than sockets, streams and the router hold together."""


async def test_a_slow_reader_holds_up_others_of_a_large_answer_and_memory_is_bounded() -> None:
    async with Upstream() as a:
        a.always(sse_reply(pieces(*[letter * PIECE for letter in "abcdefgh"] * (PIECES // 8))))
        async with shared(a) as served:
            slow = served.stub.StreamChat(cold(), metadata=ONE)
            await read_up_to(slow, "delta")
            replays = served.server.assembly.router._router.replays  # type: ignore[attr-defined]
            [flight] = replays.flights
            quick = served.stub.StreamChat(cold(), metadata=TWO)
            taken = 0
            async with asyncio.timeout(20):
                while flight.held < HELD or replays.flights:
                    taken += len((await quick.read()).delta.text)
                    assert flight.held <= HELD + 4 * PIECE
            assert flight.waiting == 2
            assert taken < PIECES * PIECE * 3 / 4
            late = asyncio.ensure_future(text(served.stub.StreamChat(cold(), metadata=TWO)))
            await a.requested(2)
            slow.cancel()
            while (event := await quick.read()).WhichOneof("event") != "finished":
                taken += len(event.delta.text)
                assert flight.held <= HELD + 4 * PIECE
            assert taken == PIECES * PIECE, "nobody waits for one who left"
            assert len(await late) == PIECES * PIECE, "who came too late for the beginning asked anew"
            assert len(a.requests) == 2
