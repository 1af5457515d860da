"""Answers that are given again, through the whole server: cached, joined in flight, named by a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from google.rpc import error_details_pb2
from redis.asyncio import Redis

from modelrouter.v1 import embed_pb2
from router_server.auth.api_keys import hash_of
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving, text_of
from tests.state.servers import SharedServer, shared_server
from tests.upstream import SSE_HEAD, Upstream, event, json_reply, sse_reply

COLD = {"temperature": 0}


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


@asynccontextmanager
async def cached(
    a: Upstream,
    *,
    cache: str = "{ttl: 1h}",
    extra: str = "",
    model: str = "model: model-a",
    redis: SharedServer | None = None,
) -> AsyncIterator[Served]:
    text = f"""
        {f"redis: {redis.url}" if redis else ""}
        providers:
          a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: null}}
        targets: {{a1: {{provider: a, {model}, price: {{input: 1, output: 1}}}}}}
        routes:
          chat: {{targets: [a1], cache: {cache}, aliases: [gpt]}}
          plain: {{targets: [a1]}}
        {extra}
    """
    async with serving(text) as served:
        yield served


async def ask(
    served: Served, model: str = "chat", text: str = "Hi", metadata: Any = None, **fields: Any
) -> bool:
    """Return whether the answer came from the cache."""
    response = await served.stub.Chat(chat(model, text, **fields), metadata=metadata)
    assert response.message.content[0].text == "Hello"
    assert response.id
    return bool(response.route.cache_hit)


async def test_the_same_question_gets_the_same_answer_and_costs_nothing() -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a) as served:
            first = await served.stub.Chat(chat(generation=COLD))
            again = await served.stub.Chat(chat("gpt", generation=COLD, labels={"team": "x"}))
            assert (first.route.cache_hit, again.route.cache_hit) == (False, True)
            assert (first.usage.cost_nano_usd, again.usage.cost_nano_usd) == (5_000, 0)
            assert again.message == first.message
            assert again.id != first.id
            assert (again.route.target, list(again.route.attempts)) == ("a1", [])
            assert len(a.requests) == 1


@pytest.mark.parametrize(
    ("fields", "hit"),
    [
        ({"generation": COLD}, True),
        ({"generation": COLD, "userId": "u"}, True),
        ({}, False),
        ({"routing": {"allowCache": True}}, True),
        ({"generation": COLD, "routing": {"allowCache": False}}, False),
        ({"generation": {"temperature": 0.5}}, False),
        ({"model": "plain", "generation": COLD, "routing": {"allowCache": True}}, False),
    ],
)
async def test_what_is_cached(fields: dict[str, Any], hit: bool) -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a) as served:
            assert not await ask(served, **fields)
            assert await ask(served, **fields) is hit


async def test_another_question_has_another_answer() -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a) as served:
            assert not await ask(served, generation=COLD)
            assert not await ask(served, text="Hey", generation=COLD)
            assert not await ask(served, generation={**COLD, "seed": 1})
            assert not await ask(served, generation={**COLD, "maxOutputTokens": 5})
            assert len(a.requests) == 4


async def test_a_stream_is_given_again_as_a_stream_and_vectors_too() -> None:
    vectors = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": {"prompt_tokens": 7}}
    async with Upstream() as a:
        a.on("/v1/chat/completions", sse_reply(pieces("Hel", "lo"))).on("/v1/embeddings", json_reply(vectors))
        async with cached(a) as served:
            first = await events_of(served.stub.StreamChat(chat(generation=COLD)))
            again = await events_of(served.stub.StreamChat(chat(generation=COLD)))
            assert [name for name, _ in again] == [name for name, _ in first]
            assert text_of(again) == "Hello"
            assert again[0][1].route.cache_hit
            assert again[-1][1].route.cache_hit
            request = embed_pb2.EmbedRequest(model="chat", inputs=[embed_pb2.EmbedInput(text="cat")])
            hits = [(await served.stub.Embed(request)).route.cache_hit for _ in range(2)]
            assert (hits, len(a.requests)) == ([False, True], 2)


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_the_same_question_at_the_same_time_is_asked_once(streaming: bool) -> None:
    go_on = asyncio.Event()
    async with Upstream() as a:
        if streaming:
            first, *rest = pieces("Hel", "lo")
            a.always((*SSE_HEAD, event(first), go_on, *sse_reply(rest)[1:]))
        else:
            a.always((go_on, *json_reply(answer())))
        async with cached(a) as served:
            method = served.stub.StreamChat if streaming else served.stub.Chat
            calls = [method(chat(generation=COLD)) for _ in range(3)]
            asked = [asyncio.ensure_future(_streamed(c) if streaming else _whole(c)) for c in calls]
            await a.requested()
            replays = served.server.assembly.router.replays  # type: ignore[attr-defined]
            await until(lambda: [flight.waiting for flight in replays.flights] == [3])
            calls[0].cancel()
            await until(lambda: [flight.waiting for flight in replays.flights] == [2])
            go_on.set()
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert (done[1:], len(a.requests)) == (["Hello", "Hello"], 1)
            assert served.idle


async def _streamed(call: Any) -> str:
    return text_of(await events_of(call))


async def _whole(call: Any) -> str:
    return str((await call).message.content[0].text)


async def test_a_failure_is_not_kept() -> None:
    async with Upstream() as a:
        a.then(json_reply({"error": {"message": "no"}}, 400)).always(json_reply(answer()))
        async with cached(a) as served:
            assert (await fails(served.stub.Chat(chat(generation=COLD)))).reason == "INVALID_REQUEST"
            assert not await ask(served, generation=COLD)


@pytest.mark.parametrize("across", [False, True])
async def test_one_key_s_answers_are_not_another_s_unless_the_route_says_so(across: bool) -> None:
    keys = ", ".join(f"{{name: {name}, sha256: {hash_of(name)}}}" for name in ("one", "two"))
    async with Upstream() as a:
        a.always(json_reply(answer()))
        cache = f"{{across_keys: {str(across).lower()}}}"
        async with cached(a, cache=cache, extra=f"auth: {{api_keys: [{keys}]}}") as served:
            one, two = (("x-api-key", "one"),), (("x-api-key", "two"),)
            assert not await ask(served, metadata=one, generation=COLD)
            assert await ask(served, metadata=one, generation=COLD)
            assert await ask(served, metadata=two, generation=COLD) is across


@pytest.mark.parametrize(
    "target", ["model: model-b", "model: model-a, temperature: 1"], ids=["model", "override"]
)
async def test_what_other_models_said_is_not_given(server: SharedServer, target: str) -> None:
    vectors = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": {"prompt_tokens": 7}}
    request = embed_pb2.EmbedRequest(model="chat", inputs=[embed_pb2.EmbedInput(text="cat")])
    async with Upstream() as a:
        a.on("/v1/embeddings", json_reply(vectors))
        hits = []
        for change in ("model: model-a", target, "model: model-a"):
            async with cached(a, redis=server, model=change) as served:
                hits.append((await served.stub.Embed(request)).route.cache_hit)
        assert hits == [False, False, True]


async def test_replicas_share_what_is_kept_in_redis(server: SharedServer) -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a, redis=server) as first, cached(a, redis=server) as second:
            assert not await ask(first, generation=COLD)
            async with asyncio.timeout(20):
                while not await ask(second, generation=COLD):
                    pass
            server.kill()
            assert not await ask(first, generation=COLD), "without it they are asked again"


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_claim_waits_for_no_redis(server: SharedServer, how: str) -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a, redis=server) as served:
            (server.freeze if how == "frozen" else server.kill)()
            async with asyncio.timeout(20):
                assert not await ask(served, "plain", idempotencyKey="k")
            assert len(a.requests) == 1


async def test_an_idempotency_key_names_one_call_of_one_caller() -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a) as served:
            assert not await ask(served, "plain", idempotencyKey="k1")
            assert await ask(served, "plain", idempotencyKey="k1")
            assert await ask(served, "plain", idempotencyKey="k1", routing={"priority": 3})
            assert not await ask(served, "plain", idempotencyKey="k2")
            other = await fails(served.stub.Chat(chat("plain", "Something else", idempotencyKey="k1")))
            assert (other.code, other.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
            [violation] = other.detail(error_details_pb2.BadRequest).field_violations
            assert violation.field == "idempotency_key"
            assert not await ask(served, text="Something else", idempotencyKey="k1"), "another route"
            assert len(a.requests) == 3


async def test_a_repeated_call_joins_the_one_in_flight() -> None:
    go_on = asyncio.Event()
    async with Upstream() as a:
        a.always((go_on, *json_reply(answer())))
        async with cached(a) as served:
            request = chat("plain", idempotencyKey="k")
            calls = [asyncio.ensure_future(_whole(served.stub.Chat(request))) for _ in range(2)]
            await a.requested()
            replays = served.server.assembly.router.replays  # type: ignore[attr-defined]
            await until(lambda: [flight.waiting for flight in replays.flights] == [2])
            other = await fails(served.stub.Chat(chat("plain", "Else", idempotencyKey="k")))
            assert other.code == "INVALID_ARGUMENT"
            go_on.set()
            assert await asyncio.gather(*calls) == ["Hello", "Hello"]
            assert len(a.requests) == 1


async def test_an_idempotency_key_is_one_caller_s_own() -> None:
    keys = ", ".join(f"{{name: {name}, sha256: {hash_of(name)}}}" for name in ("one", "two"))
    one, two = (("x-api-key", "one"),), (("x-api-key", "two"),)
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a, cache="{across_keys: true}", extra=f"auth: {{api_keys: [{keys}]}}") as served:
            assert not await ask(served, "plain", metadata=one, idempotencyKey="k")
            assert not await ask(served, "plain", "Else", metadata=two, idempotencyKey="k"), (
                "another question"
            )
            assert await ask(served, "plain", metadata=one, idempotencyKey="k")
            assert await ask(served, "plain", "Else", metadata=two, idempotencyKey="k")
            assert not await ask(served, metadata=one, idempotencyKey="k")
            assert not await ask(served, metadata=two, idempotencyKey="k"), "also where answers are shared"


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_a_retry_with_the_same_key_after_a_failure_is_a_new_call(streaming: bool) -> None:
    async with Upstream() as a:
        a.then(json_reply({"error": {"message": "no"}}, 400))
        a.always(sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer()))
        async with cached(a) as served:
            method = served.stub.StreamChat if streaming else served.stub.Chat
            request = chat("plain", idempotencyKey="k")
            assert (await fails(method(request))).reason == "INVALID_REQUEST"
            for _ in range(2):
                assert await (_streamed if streaming else _whole)(method(request)) == "Hello"
            assert len(a.requests) == 2
            other = await fails(method(chat("plain", "Else", idempotencyKey="k")))
            assert other.code == "INVALID_ARGUMENT"


async def test_a_key_of_a_whole_answer_is_not_one_of_a_stream() -> None:
    async with Upstream() as a:
        a.always(json_reply(answer()))
        async with cached(a) as served:
            assert not await ask(served, "plain", idempotencyKey="k")
            refused = await fails(served.stub.StreamChat(chat("plain", idempotencyKey="k")))
            assert refused.code == "INVALID_ARGUMENT"


def _any_claim(names: Sequence[Any]) -> bool:
    return any(name.endswith(b":claim") for name in names)


async def test_what_is_kept_in_redis_ends_by_itself(server: SharedServer) -> None:
    async with Upstream() as a, Redis.from_url(server.url) as redis:
        a.always(json_reply(answer()))
        async with cached(
            a, cache="{ttl: 90s}", extra="server: {idempotency_ttl: 45s}", redis=server
        ) as served:
            await ask(served, generation=COLD)
            await ask(served, "plain", idempotencyKey="very-secret-key")
            async with asyncio.timeout(20):
                # Both are kept, and nothing is claimed any more.
                while len(kept := await redis.keys("modelrouter:{cache}:*")) != 2 or _any_claim(kept):
                    pass
            lives = {str(key).split(":")[2]: await redis.pttl(key) for key in kept}
            assert 80_000 < lives["cached"] <= 90_000
            assert 35_000 < lives["idempotent"] <= 45_000
            await redis.flushall()
            assert not await ask(served, generation=COLD)
