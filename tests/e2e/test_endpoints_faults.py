"""Several servers as one provider, and a fallback behind them: a fault of one, or of both, costs no call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from modelrouter import Answer, AsyncClient
from tests.e2e.serving import Served, serving
from tests.e2e.vllm_like import Engine, engines, loads_known
from tests.faults.faults import RESET, SILENCE, cut, garbled, whole
from tests.faults.stage import soon, together
from tests.faults.wires import VLLM, provider_keys, said
from tests.upstream import Reply, Upstream

OF_ONE, OF_OTHER, OF_FALLBACK = said("one"), said("other"), said("fallback")

FAULTS: dict[str, Reply] = {
    "429": VLLM.refusal(429, retry_after=5),
    "503": VLLM.refusal(503),
    "401": VLLM.refusal(401),
    "404": VLLM.refusal(404),
    "reset": RESET,
    "silence": SILENCE,
    "cut": cut(VLLM, OF_ONE, 40),
    "garbled": garbled(VLLM, OF_ONE, 30),
}
"""What a server does to every call; its health and its load are fine all the while."""

LOOKS = "load_interval: 50ms, load_idle_interval: 50ms"
QUICK = "timeouts: {first_token: 1s, idle: 1s, unary: 1s}"


@dataclass
class Scene:
    """Two servers, the first of which is asked first, and the fallback."""

    served: Served
    client: AsyncClient
    one: Engine
    other: Engine
    fallback: Upstream

    async def call(self, way: str) -> Answer:
        """Make one call."""
        if way == "stream":
            return await self.client.stream_chat("Hi").result()
        return await self.client.chat("Hi")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with engines() as (one, other), Upstream() as fallback:
        other.load = (50, 0, 0.0)
        fallback.always(whole(VLLM, OF_FALLBACK))
        urls = f'"{one.upstream.base_url}", "{other.upstream.base_url}"'
        text = f"""
            providers:
              local: {{kind: vllm, base_urls: [{urls}], {LOOKS}, {QUICK}}}
              away: {{{provider_keys(VLLM, fallback)}, health_check: null, {QUICK}}}
            targets:
              small: {{provider: local, model: small}}
              large: {{provider: away, model: large}}
            routes:
              chat: {{targets: [small], strategy: weighted, fallback: [large]}}
            telemetry: {{log: {{level: error}}}}
        """
        async with serving(text) as served, AsyncClient(served.target) as client:
            await loads_known(served, one, other)
            yield Scene(served, client, one, other, fallback)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_other_server_answers(fault: str) -> None:
    await together(*(_by_the_other(FAULTS[fault], way) for way in ("stream", "unary")))


async def _by_the_other(fault: Reply, way: str) -> None:
    async with scene() as it:
        it.one.upstream.always(fault)
        it.other.upstream.always(whole(VLLM, OF_OTHER))
        answer = await it.call(way)
        assert (answer.route.target, answer.text) == ("small", OF_OTHER.text)
        assert (len(it.one.asked), len(it.other.asked), len(it.fallback.requests)) == (1, 1, 0)
        assert await soon(lambda: it.served.idle)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_fallback_answers_where_both_fail(fault: str) -> None:
    await together(*(_by_the_fallback(FAULTS[fault], way) for way in ("stream", "unary")))


async def _by_the_fallback(fault: Reply, way: str) -> None:
    async with scene() as it:
        it.one.upstream.always(fault)
        it.other.upstream.always(fault)
        answer = await it.call(way)
        assert (answer.route.target, answer.text) == ("large", OF_FALLBACK.text)
        assert it.one.asked
        assert it.other.asked
        assert len(it.fallback.requests) == 1
        assert await soon(lambda: it.served.idle)
