"""One call under an idempotency key is asked once among three processes, also where one of them is killed."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from router_server.core.claim import CLAIM_TTL
from tests.distributed.replicas import Replica, replicas, until
from tests.e2e.serving import answer, chat, events_of, fails, pieces, text_of
from tests.state.servers import SharedServer
from tests.upstream import Upstream, json_reply, sse_reply


def configuration(redis: str, a: Upstream) -> str:
    provider = {"kind": "openai", "api_key": "k", "base_url": a.base_url, "health_check": None}
    whole = {
        "server": {"http_listen": None, "drain_delay": 0},
        "redis": redis,
        "providers": {"a": provider},
        "targets": {"t": {"provider": "a", "model": "x"}},
        "routes": {"chat": {"targets": ["t"]}},
    }
    return json.dumps(whole)


async def ask(replica: Replica, key: str) -> bool:
    """Return whether the answer is that of another call."""
    response = await replica.stub.Chat(chat(idempotencyKey=key), timeout=60)
    assert response.message.content[0].text == "Hello"
    return bool(response.route.cache_hit)


async def read(replica: Replica, key: str) -> bool:
    """Do the same with a stream."""
    events = await events_of(replica.stub.StreamChat(chat(idempotencyKey=key), timeout=60))
    assert text_of(events) == "Hello"
    return bool(events[-1][1].route.cache_hit)


async def once(some: list[Replica], a: Upstream, how: Any, reply: Any) -> None:
    gate = asyncio.Event()
    a.always((gate, *reply))
    before, key = len(a.requests), how.__name__
    calls = [asyncio.create_task(how(some[0], key))]
    await until(lambda: len(a.requests) == before + 1)
    calls += [asyncio.create_task(how(one, key)) for one in some[1:]]
    for one in some[1:]:
        other = await fails(one.stub.Chat(chat("chat", "Else", idempotencyKey=key), timeout=60))
        assert (other.code, other.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert not any(call.done() for call in calls)
    gate.set()
    assert await asyncio.gather(*calls) == [False, True, True]
    assert len(a.requests) == before + 1


async def taken_over(some: list[Replica], a: Upstream) -> None:
    a.always((asyncio.Event(), *json_reply(answer())))
    victim, *others = some
    before = len(a.requests)
    lost = asyncio.create_task(ask(victim, "owner"))
    await until(lambda: len(a.requests) == before + 1)
    calls = [asyncio.create_task(ask(one, "owner")) for one in others]
    a.always(json_reply(answer()))
    await victim.end(signal.SIGKILL)
    with pytest.raises(aio.AioRpcError):
        await lost
    async with asyncio.timeout(CLAIM_TTL + 30):
        assert sorted(await asyncio.gather(*calls)) == [False, True]
    assert len(a.requests) == before + 2


@pytest.mark.timeout(240)
async def test_three_processes_ask_once(folder: Path, redis: SharedServer) -> None:
    async with Upstream() as a, replicas(folder, configuration(redis.url, a), patient=True) as some:
        await once(some, a, ask, json_reply(answer()))
        await once(some, a, read, sse_reply(pieces("Hel", "lo")))
        await taken_over(some, a)
