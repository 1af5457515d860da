"""Two real vLLM as one provider: who is asked, and what each says of its own time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from modelrouter import AsyncClient
from router_server.core.load import Load
from tests.e2e.serving import Served, serving
from tests.telemetry.collector import Collector, attributes, collector
from tests.vllm.conftest import AT_ONCE, CAPITAL, EITHER, PATIENT, Engines
from tests.vllm.cutting import Proxy
from tests.vllm.test_scheduling import streaming, until

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

STORY = "Once upon a time there was a fox who could read. " * 30
"""Longer than one block of vLLM's cache, and than what the router takes for a beginning worth keeping."""
DECODED = 8

_PATIENCE = 60.0


@dataclass(frozen=True)
class Fleet:
    """A router before both chat engines; the first is reached over TCP."""

    server: Served
    client: AsyncClient
    proxy: Proxy
    engines: Engines

    async def hears(self, **requests: int) -> None:
        """Wait until the engines' own /metrics have told the router of so many requests in each."""
        names = {
            "first": self.proxy.base_url.removeprefix("http://"),
            "second": str(self.engines.second.socket),
        }
        upstreams = self.server.server.assembly.upstreams
        for name, count in requests.items():
            await _eventually(partial(_has, upstreams[f"local@{names[name]}"].load, count))

    async def answered(self) -> tuple[float, float]:
        """Return how many requests each engine has answered."""
        first, second = self.engines.first.metrics(), self.engines.second.metrics()
        return (await first)["request_success_total"], (await second)["request_success_total"]


@asynccontextmanager
async def fleet(engines: Engines, otlp: Collector) -> AsyncIterator[Fleet]:
    async with Proxy(engines.first.socket) as proxy:
        text = f"""
            telemetry: {{otlp_endpoint: '{otlp.url}'}}
            providers:
              local:
                kind: vllm
                base_urls: ["{proxy.base_url}", "{engines.second.base_url}"]
                load_interval: 100ms
                load_idle_interval: 100ms
                {PATIENT}
            targets:
              either: {{provider: local, model: {EITHER}}}
            routes:
              chat: {{targets: [either], stream_recovery: resume}}
        """
        async with serving(text) as server, AsyncClient(server.target) as client:
            yield Fleet(server, client, proxy, engines)


def _has(load: Load, requests: int) -> bool:
    told = load.engine
    return told is not None and told.running + told.waiting == requests


async def _eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the router tells nobody of what it learns
            await asyncio.sleep(0.02)


async def test_who_has_less_to_do_by_its_own_word_is_asked(client: AsyncClient, engines: Engines) -> None:
    """The requests in the first engine are another router's: this one knows of them by /metrics alone."""
    await until(engines.first, running=0)
    await until(engines.second, running=0)
    async with collector() as otlp, fleet(engines, otlp) as many, AsyncExitStack() as others:
        for _ in range(AT_ONCE):
            await others.enter_async_context(streaming(client))
        await many.hears(first=AT_ONCE, second=0)
        before = await many.answered()
        for _ in range(3):
            await many.client.chat(CAPITAL, max_output_tokens=2)
            await many.hears(first=AT_ONCE, second=0)
        after = await many.answered()
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 3]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_what_vllm_says_of_a_requests_time_is_in_its_span(engines: Engines, streamed: bool) -> None:
    async with collector() as otlp, fleet(engines, otlp) as many:
        for _ in range(2):
            if streamed:
                await many.client.stream_chat(STORY, max_output_tokens=DECODED).result()
            else:
                await many.client.chat(STORY, max_output_tokens=DECODED)
    spans = [span for span in otlp.spans if span.name == f"chat {EITHER}"]
    first, second = sorted(spans, key=lambda span: span.start_time_unix_nano)
    for span in (first, second):
        said = attributes(span.attributes)
        inside = [said[f"modelrouter.engine.{part}_time"] for part in ("queue", "prefill", "decode")]
        assert min(inside) >= 0
        assert (
            0 < sum(inside[1:]) <= sum(inside) <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        )
        assert said["modelrouter.attempt.tokens_per_second"] > 0
    places = [attributes(span.attributes)["modelrouter.endpoint"] for span in (first, second)]
    assert places[0] == places[1], "prompts that begin alike go to the same server"
    # Which has read it before.
    assert attributes(second.attributes)["gen_ai.usage.cache_read.input_tokens"] >= 128
    assert "modelrouter.engine.time" in otlp.metrics
