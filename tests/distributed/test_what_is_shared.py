"""Every shared feature, by three processes with one Redis; one of them is killed, and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from redis.asyncio import Redis

from router_server.auth.api_keys import hash_of
from router_server.auth.key_set import data_of
from router_server.config.callers import KeyConfig
from router_server.routing import shares_key
from tests.distributed.documented import documented_keys
from tests.distributed.replicas import Replica, replicas, until
from tests.e2e.serving import answer, chat, failure_of
from tests.state.servers import SharedServer
from tests.upstream import Upstream, json_reply

WELL = json_reply({"object": "list", "data": []})
KEYS: dict[str, dict[str, Any]] = {
    "few": {"limits": {"requests_per_minute": 4}},
    "short": {"limits": {"tokens_per_minute": 110}},
    "narrow": {"limits": {"max_concurrency": 2}},
    "poor": {"budget": {"daily_usd": 0.005}},
    "free": {},
}
INTERVAL = 1.0


def configuration(redis: str, p: Upstream, r: Upstream, spare: Upstream, hook: Upstream) -> str:
    openai = {"kind": "openai", "api_key": "very-secret-key", "retries": 0, "health_check": None}
    breaker = {"failure_threshold": 3, "open": 2, "open_max": 2}
    one_by_one = {"requests_per_minute": 1_000}
    whole = {
        "server": {"http_listen": None, "drain_delay": 0},
        "redis": redis,
        "alerts": {"webhook": f"{hook.root_url}/very-secret", "after": 0},
        "auth": {"api_keys": "redis"},
        "providers": {
            "p": {**openai, "base_url": p.base_url, "health_check": {"interval": INTERVAL}},
            "r": {**openai, "base_url": r.base_url, "limits": one_by_one},
            "spare": {**openai, "base_url": spare.base_url, "budget": {"monthly_usd": 1_000}},
        },
        "targets": {
            "t": {"provider": "p", "model": "x", "max_output_tokens": 50, "price": {"request": 0.001}},
            "v": {"provider": "r", "model": "x", "breaker": breaker},
            "u": {"provider": "spare", "model": "x", "price": {"request": 0.000_001}},
        },
        "routes": {
            "chat": {"targets": ["t"]},
            "safe": {"targets": ["v", "u"]},
            "homes": {"targets": ["t", "u"], "sticky": {"by": "user_id", "shares": {"t": 0.5, "u": 0.5}}},
            "again": {"targets": ["u"], "cache": {"ttl": 60}},
        },
    }
    return json.dumps(whole)


async def keys_written(redis: Redis) -> None:
    """Leave API keys where `router-server keys` does."""
    keys = [KeyConfig(name=name, sha256=hash_of(_secret(name)), **terms) for name, terms in KEYS.items()]
    await redis.mset({"modelrouter:{keys}:all": json.dumps(data_of(keys)), "modelrouter:{keys}:version": 1})


def _secret(name: str) -> str:
    return f"very-secret-of-{name}"


async def ask(replica: Replica, key: str, model: str = "chat", *, within: float = 40, **fields: Any) -> Any:
    """Call once; return the answer, or the reason for which it was refused."""
    metadata = (("x-api-key", _secret(key)),)
    try:
        return await replica.stub.Chat(chat(model, **fields), metadata=metadata, timeout=within)
    except aio.AioRpcError as error:
        return failure_of(error).reason


class Shown:
    """What is shown, one feature after the other."""

    def __init__(self, some: Sequence[Replica], redis: Redis, upstreams: Sequence[Upstream]) -> None:
        self.some = some
        self.redis = redis
        self.p, self.r, self.spare, self.hook = upstreams

    async def granted(self, key: str, times: int = 9) -> Counter[str]:
        """Call so often at once, all replicas alike, while the upstream holds its answers back."""
        gate = asyncio.Event()
        self.p.always((gate, *json_reply(answer())))
        before = len(_chats(self.p))
        calls = [asyncio.create_task(ask(self.some[i % 3], key)) for i in range(times)]
        await until(lambda: len(_chats(self.p)) - before + sum(call.done() for call in calls) == times)
        gate.set()
        self.p.always(json_reply(answer()))
        ends = await asyncio.gather(*calls)
        return Counter(end if isinstance(end, str) else "answered" for end in ends)

    async def shown(self, name: str, by: Sequence[Replica], *, serving: bool) -> None:
        """Wait until health says so of ``name`` everywhere."""

        async def so() -> bool:
            return all([await one.serving(name) is serving for one in by])

        await until(so)

    async def limits(self) -> None:
        assert await self.granted("few") == {"answered": 4, "QUOTA_EXCEEDED": 5}
        assert await self.granted("short") == {"answered": 2, "QUOTA_EXCEEDED": 7}, "51 tokens each"
        assert await self.granted("narrow") == {"answered": 2, "QUOTA_EXCEEDED": 7}
        assert await self.granted("poor") == {"answered": 5, "BUDGET_EXCEEDED": 4}

    async def homes(self) -> None:
        users = [f"user-{number}" for number in range(6)]
        asked = [(replica, user) for user in users for replica in self.some]
        await asyncio.gather(*(ask(one, "free", "homes", userId=user) for one, user in asked))
        for user in users:
            homes = {(await ask(one, "free", "homes", userId=user)).route.target for one in self.some}
            assert len(homes) == 1
        await self.redis.set(shares_key("homes"), json.dumps({"u": 1.0}), ex=3_600)
        answers = [await ask(self.some[i % 3], "free", "homes", userId=f"late-{i}") for i in range(6)]
        assert {one.route.target for one in answers} == {"u"}

    async def answers(self) -> None:
        question: dict[str, Any] = {"generation": {"temperature": 0}}
        assert not (await ask(self.some[0], "free", "again", **question)).route.cache_hit
        assert not (await ask(self.some[0], "free", idempotencyKey="k")).route.cache_hit

        async def found() -> bool:
            # It is kept once whoever asked has it, in the background.
            one, other = self.some[1:]
            hits = [
                await ask(one, "free", "again", **question),
                await ask(other, "free", "again", **question),
                await ask(one, "free", idempotencyKey="k"),
                await ask(other, "free", idempotencyKey="k"),
            ]
            return all(hit.route.cache_hit for hit in hits)

        await until(found)

    async def breaker(self) -> None:
        first, *others = self.some
        self.r.always(json_reply({}, 500))
        for _ in range(3):
            assert (await ask(first, "free", "safe")).route.target == "u"
        assert not await first.serving("target/v")
        began = time.monotonic()
        await self.shown("target/v", others, serving=False)
        assert len(self.r.requests) == 3, "the others know without having asked"
        if time.monotonic() - began < 1:
            assert all([(await ask(one, "free", "safe")).route.target == "u" for one in others])
            assert len(self.r.requests) == 3
        await until(lambda: _any_probe(self.some, self.r, 3))
        assert len(self.r.requests) <= 3 + 3, "at most one probe of each in an open period"
        self.r.always(json_reply(answer()))

        async def back() -> bool:
            # One alone asks, and all of them hear that it is well.
            await ask(others[0], "free", "safe")
            return all([await one.serving("target/v") for one in self.some])

        await until(back)
        used = [(await ask(one, "free", "safe")).route.target for one in self.some]
        assert used == ["v"] * 3

    async def health(self) -> None:
        before, began = len(_checks(self.p)), time.monotonic()
        await until(lambda: len(_checks(self.p)) >= before + 4)
        took = time.monotonic() - began
        # By itself each of the three would check at least every 1.1 s.
        assert took > 4 * 0.9 * INTERVAL - 1, "one check in an interval"
        await self.outage()

    async def outage(self) -> None:
        before = len(_told(self.hook))
        self.p.on("/v1/models", json_reply({}, 503))
        await self.shown("target/t", self.some, serving=False)
        await until(lambda: len(_told(self.hook)) > before)
        self.p.on("/v1/models", WELL)
        await self.shown("target/t", self.some, serving=True)
        await until(lambda: _told(self.hook)[-1].endswith("is back."))
        # Twice where the machine kept one from looking until it was over, which for it was a second outage.
        assert len(_told(self.hook)) - before in {2, 4}

    async def documented(self) -> None:
        gate = asyncio.Event()
        self.spare.always((gate, *json_reply(answer())))
        # Places, reservations and claims are there while a call runs.
        held = asyncio.create_task(ask(self.some[0], "narrow", "again", idempotencyKey="held"))
        await until(lambda: self.redis.exists("modelrouter:{limits}:caller:key/narrow:places"))
        await until(lambda: self.redis.keys("modelrouter:{budget}:provider/spare:*:holds"))
        await until(lambda: self.redis.keys("modelrouter:{cache}:idempotent:*:claim"))
        await self.kept()
        gate.set()
        await held
        self.spare.always(json_reply(answer()))

    async def kept(self) -> None:
        patterns = documented_keys()
        names = sorted(map(str, await self.redis.keys("*")))
        unknown = [name for name in names if not any(one.fullmatch(name) for one in patterns)]
        unused = [one.pattern for one in patterns if not any(one.fullmatch(name) for name in names)]
        assert not unknown, unknown
        assert not unused, unused
        ends = {name: await self.redis.pttl(name) for name in names}
        for_ever = {"modelrouter:{keys}:all", "modelrouter:{keys}:version"}
        assert {name for name, left in ends.items() if left == -1} == for_ever

    async def death(self) -> None:
        """Kill one that holds places and a reservation; what it held ends by itself."""
        victim, *others = self.some
        for upstream in (self.p, self.spare):
            upstream.always((asyncio.Event(), *json_reply(answer())))
        before = len(_chats(self.p)) + len(_chats(self.spare))
        held = [asyncio.create_task(_lost(ask(victim, "narrow", "chat", within=2))) for _ in range(2)]
        held.append(asyncio.create_task(_lost(ask(victim, "free", "again", within=2))))
        await until(lambda: len(_chats(self.p)) + len(_chats(self.spare)) == before + 3)
        assert await ask(others[0], "narrow") == "QUOTA_EXCEEDED"
        await victim.end(signal.SIGKILL)
        await asyncio.gather(*held)
        for upstream in (self.p, self.spare):
            upstream.always(json_reply(answer()))
        await self.reserved(at_most=2 + 60)
        assert not isinstance(await ask(others[0], "free"), str), "the others go on"

        async def free() -> bool:
            return not isinstance(await ask(others[1], "narrow"), str)

        await until(free)
        assert await ask(others[0], "poor") == "BUDGET_EXCEEDED", "what was spent is known"
        assert await ask(others[1], "few") == "QUOTA_EXCEEDED"
        self.some = others
        await self.outage()

    async def reserved(self, *, at_most: float) -> None:
        """Look that what was reserved ends within so many seconds."""
        now: Any = await self.redis.time()
        holds = [name async for name in self.redis.scan_iter("modelrouter:{budget}:provider/spare:*:holds")]
        ends: list[Any] = []
        for name in holds:
            pairs: Any = await self.redis.zrange(name, 0, -1, withscores=True)
            ends += [end for _hold, end in pairs]
        assert len(ends) == 1
        assert ends[0] <= (now[0] + at_most + 1) * 1_000


async def _lost(call: Awaitable[Any]) -> None:
    """Await a call whose server is killed, or whose time is over before: neither has an answer."""
    with contextlib.suppress(KeyError):
        assert isinstance(await call, str)


def _chats(upstream: Upstream) -> list[Any]:
    return [request for request in upstream.requests if request.path.endswith("/completions")]


def _checks(upstream: Upstream) -> list[Any]:
    return [request for request in upstream.requests if request.path == "/v1/models"]


def _told(hook: Upstream) -> list[str]:
    return [text for request in hook.requests if (text := request.json["text"]).startswith("Target t ")]


async def _any_probe(some: Sequence[Replica], upstream: Upstream, before: int) -> bool:
    for one in some:
        await ask(one, "free", "safe")
    return len(upstream.requests) > before


@pytest.mark.timeout(240)
async def test_three_processes_share_it_and_two_go_on(folder: Path, redis: SharedServer) -> None:
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(Upstream()) for _ in range(4)]
        p, r, spare, hook = upstreams
        p.on("/v1/models", WELL)
        spare.always(json_reply(answer()))
        hook.always(json_reply({}))
        client = Redis(unix_socket_path=redis.url.removeprefix("unix://"), decode_responses=True)
        stack.push_async_callback(client.aclose)
        await keys_written(client)
        text = configuration(redis.url, p, r, spare, hook)
        some = await stack.enter_async_context(replicas(folder, text, patient=True))
        shown = Shown(some, client, upstreams)
        await shown.limits()
        await shown.homes()
        await shown.answers()
        await shown.breaker()
        await shown.health()
        await shown.documented()
        await shown.death()
