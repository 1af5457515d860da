"""One configuration after another in a server of this process: what goes on, what is closed, what leaks."""

from __future__ import annotations

import asyncio
import random
from textwrap import dedent
from typing import Any

import pytest
from grpc import aio

from router_server.auth.api_keys import hash_of
from router_server.config import Config, read
from router_server.reloading import settled
from tests.e2e.serving import Served, chat, events_of, serving

VERSIONS = (
    "{kind: mock, reply: a b c, tokens_per_second: 200}",
    "{kind: mock, reply: a b c, tokens_per_second: 200, max_concurrency: 3}",
    "{kind: mock, reply: a b c, tokens_per_second: 300, adaptive: {min: 2}}",
    "{kind: mock, reply: a b c, tokens_per_second: 200, breaker: {failure_threshold: 9}, retries: 0}",
)
TARGETS = (
    "{provider: m, model: x}",
    "{provider: m, model: x, max_concurrency: 2}",
    "{provider: m, model: y}",
)


def text(provider: str = VERSIONS[0], target: str = TARGETS[0], more: str = "") -> str:
    return dedent(f"""
        providers: {{m: {provider}, n: {{kind: mock, reply: a b c}}}}
        targets: {{t: {target}, u: {{provider: n, model: z}}}}
        routes: {{chat: {{targets: [t, u]}}, other: {{targets: [u], strategy: round_robin}}}}
    """) + dedent(more)


def config(**parts: str) -> Config:
    return read(text(**parts), {}, origin="test")


async def reload(served: Served, wanted: Config) -> None:
    running = served.server.assembly.config
    new, _staying = settled(running, wanted)
    await served.server.prepare(new)
    served.server.follow()


@pytest.mark.parametrize("seed", range(3))
async def test_no_sequence_of_reloads_with_calls_in_flight_loses_a_call_or_leaks(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same each time

    async def call(served: Served) -> Any:
        request = chat(chance.choice(("chat", "other")))
        if chance.random() < 0.5:
            return await served.stub.Chat(request)
        return (await events_of(served.stub.StreamChat(request)))[-1]

    async with serving(text()) as served:
        await call(served)
        tasks = len(asyncio.all_tasks())
        calls: list[asyncio.Task[Any]] = []
        left: list[Any] = []
        for _ in range(40):
            match chance.randrange(4):
                case 0:
                    wanted = config(provider=chance.choice(VERSIONS), target=chance.choice(TARGETS))
                    await reload(served, wanted)
                case 1:
                    await served.server.prepare(config(provider=chance.choice(VERSIONS)))
                    await served.server.refuse()
                case 2:
                    stream = served.stub.StreamChat(chat())
                    await anext(aiter(stream))
                    left.append(stream.cancel())
                case _:
                    calls.append(asyncio.create_task(call(served)))
                    await asyncio.sleep(0)
        assert None not in await asyncio.gather(*calls)
        succession = served.server.works.succession
        async with asyncio.timeout(20):
            while succession.leaving or served.server.rpc.inflight:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        assert served.idle
        used = {id(upstream.provider) for upstream in served.server.assembly.upstreams.values()}
        assert {id(provider) for _, provider in served.server.assembly.providers._made} == used
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > tasks + 1:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)


async def test_what_is_described_alike_goes_on_and_what_is_not_begins_anew() -> None:
    quiet = "{kind: mock, reply: a b c, health_check: null}"
    async with serving(text(quiet)) as served:
        before = served.server.assembly
        before.targets["t"].breaker.trip()
        before.targets["u"].cooldown.rate_limited(30.0)
        await reload(served, config(provider=quiet, target="{provider: m, model: x, max_output_tokens: 5}"))
        now = served.server.assembly
        assert now is not before
        assert now.upstreams == before.upstreams
        assert now.targets["u"] is before.targets["u"]
        assert now.targets["t"] is not before.targets["t"]
        assert served.breaker("t") == "open"
        assert now.targets["u"].cooldown.remaining > 0
        assert now.routes[1] is before.routes[1]
        assert now.speeds is before.speeds
        await reload(served, config(provider=quiet.replace("a b c", "d")))
        assert served.breaker("t") == "closed", "it speaks to something else now"
        assert served.limiter("m") is not before.upstreams["m"].limiter
        assert served.limiter("n") is before.upstreams["n"].limiter


async def test_copies_that_run_take_places_under_the_next_configuration_too() -> None:
    slow = "{kind: mock, reply: a b c, tokens_per_second: 0.001, timeouts: {idle: 1h}, health_check: null}"

    def shadowed(reply: str) -> str:
        text = f"""
            providers: {{m: {{kind: mock, reply: {reply}}}, n: {slow}}}
            targets: {{t: {{provider: m, model: x}}, u: {{provider: n, model: z}}}}
            routes: {{chat: {{targets: [t], shadow: {{target: u, max_copies: 2}}}}}}
        """
        return dedent(text)

    async with serving(shadowed("one")) as served:
        for _ in range(2):
            await served.stub.Chat(chat())
        await reload(served, read(shadowed("two"), {}, origin="test"))
        for _ in range(3):
            await served.stub.Chat(chat())
        (count,) = served.server.assembly.copies()
        assert (count.sent, count.running, count.dropped) == (2, 2, 3)
        await reload(
            served, read(shadowed("two").replace("max_copies: 2", "max_copies: 3"), {}, origin="test")
        )
        await served.stub.Chat(chat())
        (count,) = served.server.assembly.copies()
        assert (count.sent, count.running, count.dropped) == (3, 3, 3)


async def test_callers_are_asked_who_they_are_as_soon_as_the_configuration_says_so() -> None:
    async with serving(text()) as served:
        await served.stub.Chat(chat())
        await reload(
            served, config(more=f"auth: {{api_keys: [{{name: a, sha256: {hash_of('very-secret-a')!r}}}]}}")
        )
        with pytest.raises(aio.AioRpcError) as refused:
            await served.stub.Chat(chat())
        assert refused.value.code().name == "UNAUTHENTICATED"
        await served.stub.Chat(chat(), metadata=(("x-api-key", "very-secret-a"),))
        await reload(served, config())
        await served.stub.Chat(chat())
