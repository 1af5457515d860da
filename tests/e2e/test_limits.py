"""How much callers may use, through a whole server and real channels, alone and with replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import aio

from modelrouter.v1 import models_pb2
from router_server.auth.api_keys import hash_of
from router_server.core import shared
from tests.e2e.serving import Failure, Served, answer, chat, fails, pieces, serving
from tests.state.servers import SharedServer, shared_server
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply, sse_reply

A, B = (("x-api-key", "very-secret-a"),), (("x-api-key", "very-secret-b"),)


def config(upstream: Upstream, *, redis: str = "", limits: Any = None, route: Any = None, **of_a: Any) -> str:
    keys = [
        {"name": "a", "sha256": hash_of("very-secret-a"), "limits": of_a or None},
        {"name": "b", "sha256": hash_of("very-secret-b")},
    ]
    whole = {
        "providers": {
            "p": {
                "kind": "openai",
                "api_key": "very-secret-p",
                "base_url": upstream.base_url,
                "retries": 0,
                "health_check": None,
            }
        },
        "targets": {"t": {"provider": "p", "model": "x", "max_output_tokens": 50}},
        "routes": {"chat": {"targets": ["t"], "limits": route}, "free": {"targets": ["t"]}},
        "auth": {"api_keys": keys},
        "limits": limits,
    }
    return json.dumps({**whole, "redis": redis} if redis else whole)


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for the shared state than any call would: these tests ask what it counts, not how fast."""
    monkeypatch.setattr(shared, "CALL_PATIENCE", 10.0)


@pytest.fixture(params=["memory", "redis"])
def redis(request: pytest.FixtureRequest) -> str:
    """The URL of a shared state, or nothing."""
    return "" if request.param == "memory" else str(request.getfixturevalue("server").url)


@asynccontextmanager
async def answering() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.always(json_reply(answer()))
        yield upstream


async def left(call: Any) -> dict[str, str]:
    """Await a unary call, and return what its trailers say of limits."""
    await call
    return limits_in(await call.trailing_metadata())


def limits_in(trailers: Any) -> dict[str, str]:
    prefix = "x-ratelimit-"
    return {key.removeprefix(prefix): value for key, value in trailers if key.startswith(prefix)}


async def idle(served: Served) -> None:
    """Return once no permit is held."""
    request = models_pb2.ListModelsRequest()
    while not served.idle:
        await served.stub.ListModels(request, metadata=A)


async def settled(served: Served) -> None:
    """Return once nothing is being settled any more."""
    while (quotas := served.server.works.quotas)._settling:
        await asyncio.wait(set(quotas._settling))


def check_refused(failure: Failure, resource: str) -> None:
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert failure.metadata == {"resource": resource}
    assert failure.detail(error_details_pb2.QuotaFailure).violations[0].subject == resource.partition(" ")[0]


async def test_requests_per_minute_of_a_key(redis: str) -> None:
    async with answering() as upstream:
        async with serving(config(upstream, redis=redis, requests_per_minute=2)) as served:
            first = await left(served.stub.Chat(chat(), metadata=A))
            assert (first["limit"], first["remaining"]) == ("2", "1")
            assert first["resource"] == "caller requests_per_minute"
            assert 59 <= int(first["reset"]) <= 61
            assert (await left(served.stub.Chat(chat(), metadata=A)))["remaining"] == "0"
            with pytest.raises(aio.AioRpcError) as raised:
                await served.stub.Chat(chat(), metadata=A)
            told = limits_in(raised.value.trailing_metadata())
            assert (told["limit"], told["remaining"]) == ("2", "0")
            failure = await fails(served.stub.StreamChat(chat(), metadata=A))
            check_refused(failure, "caller requests_per_minute")
            assert failure.retry_after is not None
            assert 30 < failure.retry_after <= 61
            assert failure.pushback == "-1"
            assert await left(served.stub.Chat(chat(), metadata=B)) == {}
        assert len(upstream.requests) == 3


async def test_tokens_are_reserved_before_and_settled_after(redis: str) -> None:
    async with (
        answering() as upstream,
        serving(config(upstream, redis=redis, tokens_per_minute=200)) as served,
    ):
        # Reserved: one token of prompt, and 50 that the target may answer with; used, as it says: 5.
        for used in range(4):
            await settled(served)
            seen = await left(served.stub.Chat(chat(), metadata=A))
            assert seen["remaining"] == str(200 - 5 * used - 51)
        await settled(served)
        seen = await left(served.stub.Chat(chat(generation={"max_output_tokens": 10}), metadata=A))
        assert seen["remaining"] == str(200 - 20 - 11)


async def test_calls_in_flight_hold_what_they_reserved(redis: str) -> None:
    async with Upstream() as upstream:
        upstream.always((*SSE_HEAD, event(pieces("Once", finish=None)[0]), End.STALL))
        async with serving(config(upstream, redis=redis, tokens_per_minute=120)) as served:
            streams = [served.stub.StreamChat(chat(), metadata=A) for _ in range(2)]
            for stream in streams:
                await stream.read()
            check_refused(await fails(served.stub.StreamChat(chat(), metadata=A)), "caller tokens_per_minute")
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*(one.closed.wait() for one in upstream.connections))
            await idle(served)
            await settled(served)
            # A cancelled call has used what came of it: of each, one token of prompt and one of answer.
            upstream.always(sse_reply(pieces("done")))
            call = served.stub.StreamChat(chat(), metadata=A)
            assert [one async for one in call]
            assert limits_in(await call.trailing_metadata())["remaining"] == str(120 - 4 - 51)


async def test_what_no_target_was_asked_costs_nothing(redis: str) -> None:
    async with (
        answering() as upstream,
        serving(config(upstream, redis=redis, requests_per_minute=1)) as served,
    ):
        for model in ("none", "chat"):
            bad = chat(model, routing={"allowed_targets": ["nobody"]})
            with pytest.raises(aio.AioRpcError) as raised:
                await served.stub.Chat(bad, metadata=A)
            told = limits_in(raised.value.trailing_metadata())
            assert (told["remaining"], told["reset"]) == ("1", "0"), "as it is once the call is given back"
            stream = served.stub.StreamChat(bad, metadata=A)
            await fails(stream)
            assert limits_in(await stream.trailing_metadata())["remaining"] == "1"
            await settled(served)
        assert (await left(served.stub.Chat(chat(), metadata=A)))["remaining"] == "0"


async def test_what_found_every_place_taken_costs_nothing(redis: str) -> None:
    async with Upstream() as upstream:
        upstream.always((*SSE_HEAD, event(pieces("Once", finish=None)[0]), End.STALL))
        text = config(upstream, redis=redis, requests_per_minute=2)
        async with serving(text.replace('"retries": 0', '"max_concurrency": 1, "max_queue": 0')) as served:
            await (stream := served.stub.StreamChat(chat(), metadata=B)).read()
            for _ in range(4):
                assert (await fails(served.stub.Chat(chat(), metadata=A))).reason == "ROUTER_SATURATED"
                await settled(served)
            stream.cancel()
            await idle(served)
            upstream.always(json_reply(answer()))
            assert (await left(served.stub.Chat(chat(), metadata=A)))["remaining"] == "1"


async def test_a_failed_call_is_a_request_and_costs_no_tokens(redis: str) -> None:
    async with Upstream() as upstream:
        upstream.always(json_reply({"error": {"message": "no"}}, status=503))
        limits = {"requests_per_minute": 9, "tokens_per_minute": 60}
        async with serving(config(upstream, redis=redis, **limits)) as served:
            for _ in range(2):
                assert (await fails(served.stub.Chat(chat(), metadata=A))).reason == "ALL_TARGETS_FAILED"
                await settled(served)
            upstream.always(json_reply(answer()))
            seen = await left(served.stub.Chat(chat(), metadata=A))
            assert (seen["resource"], seen["remaining"]) == ("caller tokens_per_minute", "9")


async def test_a_prompt_that_is_more_than_there_ever_is() -> None:
    async with answering() as upstream, serving(config(upstream, tokens_per_minute=100)) as served:
        failure = await fails(served.stub.Chat(chat(text="x" * 500), metadata=A))
        check_refused(failure, "caller tokens_per_minute")
        assert (failure.retry_after, failure.pushback) == (None, None)
        # An answer that may be longer than there ever is passes alone.
        seen = await left(served.stub.Chat(chat(generation={"max_output_tokens": 5000}), metadata=A))
        assert int(seen["remaining"]) < 100


async def test_users_routes_and_callers_without_limits_of_their_own(redis: str) -> None:
    limits = {"caller": {"requests_per_minute": 4}, "user": {"requests_per_minute": 2}}
    async with answering() as upstream:
        text = config(
            upstream, redis=redis, limits=limits, route={"requests_per_minute": 5}, requests_per_minute=9
        )
        async with serving(text) as served:

            async def ask(key: Any, model: str = "chat", **fields: Any) -> Any:
                return await served.stub.Chat(chat(model, **fields), metadata=key)

            await ask(A, user_id="u")
            await ask(A, user_id="u")
            check_refused(
                await fails(served.stub.Chat(chat(user_id="u"), metadata=A)), "user requests_per_minute"
            )
            await ask(B, user_id="u")
            await ask(A, user_id="v")
            await ask(B)
            check_refused(await fails(served.stub.Chat(chat(), metadata=A)), "route requests_per_minute")
            await ask(B, "free")
            await ask(B, "free")
            check_refused(
                await fails(served.stub.Chat(chat("free"), metadata=B)), "caller requests_per_minute"
            )


async def test_calls_at_once_of_one_caller(redis: str) -> None:
    async with Upstream() as upstream:
        upstream.always((*SSE_HEAD, event(pieces("Once", finish=None)[0]), End.STALL))
        async with serving(config(upstream, redis=redis, max_concurrency=2)) as served:
            streams = [served.stub.StreamChat(chat(), metadata=A) for _ in range(2)]
            for stream in streams:
                await stream.read()
            failure = await fails(served.stub.StreamChat(chat(), metadata=A))
            check_refused(failure, "caller max_concurrency")
            assert (failure.retry_after, failure.pushback) == (1.0, "1000")
            other = served.stub.StreamChat(chat(), metadata=B)
            await other.read()
            streams[0].cancel()
            while True:
                again = served.stub.StreamChat(chat(), metadata=A)
                try:
                    await anext(aiter(again))
                except aio.AioRpcError:
                    continue
                break
            for stream in (*streams, other, again):
                stream.cancel()
            await idle(served)


async def test_replicas_share_what_a_key_may_use(server: SharedServer) -> None:
    async with answering() as upstream, AsyncExitStack() as stack:
        text = config(upstream, redis=server.url, requests_per_minute=6)
        replicas = [await stack.enter_async_context(serving(text)) for _ in range(3)]
        calls = [replica.stub.Chat(chat(), metadata=A) for replica in replicas * 4]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in results) == 6
        assert len(upstream.requests) == 6


async def test_without_the_shared_state_each_replica_grants_its_part(server: SharedServer) -> None:
    async with answering() as upstream, AsyncExitStack() as stack:
        text = config(upstream, redis=server.url, requests_per_minute=7)
        replicas = [await stack.enter_async_context(serving(text)) for _ in range(3)]
        for replica in replicas:
            await replica.server.works.state._presence.say()
        server.kill()
        granted = []
        for replica in replicas:
            results = await asyncio.gather(
                *(replica.stub.Chat(chat(), metadata=A) for _ in range(9)), return_exceptions=True
            )
            granted.append(sum(not isinstance(one, BaseException) for one in results))
        assert granted == [2, 2, 2]


def two_providers(a: Upstream, b: Upstream, redis: str, **of_a: int) -> str:
    common = {"kind": "openai", "api_key": "very-secret-p", "retries": 0, "health_check": None}
    whole = {
        "providers": {
            "a": {**common, "base_url": a.base_url, "limits": of_a},
            "b": {**common, "base_url": b.base_url},
        },
        "targets": {
            "a1": {"provider": "a", "model": "x", "max_output_tokens": 50},
            "a2": {"provider": "a", "model": "y", "max_output_tokens": 50},
            "b1": {"provider": "b", "model": "z"},
        },
        "routes": {"chat": {"targets": ["a1", "a2", "b1"]}, "only": {"targets": ["a1"]}},
    }
    return json.dumps({**whole, "redis": redis} if redis else whole)


async def test_a_provider_that_had_its_requests_is_passed_over(redis: str) -> None:
    async with answering() as a, answering() as b:
        async with serving(two_providers(a, b, redis, requests_per_minute=2)) as served:
            answered = [(await served.stub.Chat(chat())).route.target for _ in range(4)]
            assert answered == ["a1", "a1", "b1", "b1"]
            failure = await fails(served.stub.Chat(chat("only"), timeout=20))
            assert (failure.reason, failure.pushback) == ("ALL_TARGETS_RATE_LIMITED", "-1")
            assert failure.retry_after is not None
            assert failure.retry_after > 20
        assert (len(a.requests), len(b.requests)) == (2, 2)


async def test_the_tokens_of_a_provider_are_settled_too(redis: str) -> None:
    async with answering() as a, answering() as b:
        async with serving(two_providers(a, b, redis, tokens_per_minute=60)) as served:
            for _ in range(2):
                assert (await served.stub.Chat(chat())).route.target == "a1"
                await settled(served)
            # 10 of 60 are used, and 51 would be reserved.
            assert (await served.stub.Chat(chat())).route.target == "b1"
            large = await served.stub.Chat(chat("chat", text="x" * 400))
            assert large.route.target == "b1"
        assert (len(a.requests), len(b.requests)) == (2, 2)


async def test_a_shared_state_that_says_nothing_is_asked_three_times(
    server: SharedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "CALL_PATIENCE", 0.05)
    async with (
        answering() as upstream,
        serving(config(upstream, redis=server.url, requests_per_minute=1000)) as served,
    ):
        state = served.server.works.state
        server.freeze()
        for _ in range(6):
            assert (await served.stub.Chat(chat(), metadata=A)).message.content
        snapshot = state.snapshot()
        assert snapshot is not None
        asked = snapshot.asked
        late = sum(count for (_what, outcome), count in asked.items() if outcome == "timeout")
        assert late == 3, "each waited once, until three had: calls, and what runs in the background"
        assert asked["reserve", "timeout"] + asked["reserve", "skipped"] == 6
        assert state.degraded
        server.thaw()
