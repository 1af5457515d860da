"""RESUME against real vLLM: a stream that breaks goes on where it stopped, as if it had not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from bench.engines import Engine
from modelrouter import AsyncClient
from modelrouter.options import StreamOptions
from tests.e2e.serving import serving
from tests.vllm.conftest import PATIENT, Engines
from tests.vllm.cutting import Proxy

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

CUTS = 40
ALIKE = 38
"""How many of them must give the uncut text: a text that is read again may be split into other tokens."""

PROMPT = "Write three sentences in French about a café, an elephant and a student."
"""Answered in some forty tokens, some of them no whole characters."""
EXACT: StreamOptions = {"temperature": 0, "max_output_tokens": 400, "stream_recovery": "resume"}
NO_BREAKER = "breaker: {failure_threshold: 1000, failure_rate: 1, min_calls: 1000}"
UNCHECKED = f"{PATIENT}, health_check: null"


@dataclass(frozen=True)
class Cut:
    """A router before one engine, which it reaches through two proxies: the first breaks streams off."""

    client: AsyncClient
    breaking: Proxy
    whole: Proxy


@asynccontextmanager
async def cutting(engine: Engine) -> AsyncIterator[Cut]:
    async with Proxy(engine.socket) as breaking, Proxy(engine.socket) as whole:
        text = f"""
            providers:
              breaking: {{kind: vllm, base_url: "{breaking.base_url}", {UNCHECKED}, {NO_BREAKER}}}
              whole: {{kind: vllm, base_url: "{whole.base_url}", {UNCHECKED}}}
            targets:
              breaking: {{provider: breaking, model: first}}
              whole: {{provider: whole, model: first}}
            routes:
              chat: {{targets: [breaking, whole]}}
        """
        async with serving(text) as server, AsyncClient(server.target) as client:
            yield Cut(client, breaking, whole)


@dataclass
class Told:
    """What the caller of a stream was told."""

    before: str = ""
    after: str = ""
    resumed: bool | None = None
    """None: nothing broke."""

    @property
    def text(self) -> str:
        return self.after if self.resumed is False else self.before + self.after


async def tell(client: AsyncClient) -> Told:
    told = Told()
    async for event in client.stream_chat(PROMPT, **EXACT).events():
        if event.HasField("reset"):
            assert told.resumed is None
            told.resumed = event.reset.resumed
        elif told.resumed is None:
            told.before += event.delta.text
        else:
            told.after += event.delta.text
    return told


async def tell_cut(cut: Cut, number: int, length: int) -> Told:
    """Break the stream off at one of the places, and check that no character is lost or comes twice."""
    after = 1 + length * number // CUTS
    cut.breaking.expect(cut_after=after, surplus=number % 5 * 20, reset=number % 4 > 1)
    cut.whole.expect()
    told = await tell(cut.client)
    assert cut.breaking.chat is not None
    assert cut.whole.chat is not None
    # What the caller had is what vLLM was asked to continue, and what came then is what it said.
    assert cut.breaking.chat.said.startswith(told.before)
    assert told.after == cut.whole.chat.said
    assert cut.whole.chat.continues == (told.before if told.resumed else None)
    return told


async def test_forty_cuts(engines: Engines) -> None:
    async with cutting(engines.first) as one, cutting(engines.first) as other:
        uncut = (await tell(one.client)).text

        async def some(cut: Cut, first: int) -> list[Told]:
            return [await tell_cut(cut, number, len(uncut)) for number in range(first, CUTS, 2)]

        halves = await asyncio.gather(some(one, 0), some(other, 1))
    told = [one for half in halves for one in half]
    assert len(told) == CUTS
    assert sum(one.resumed is True for one in told) >= ALIKE
    assert sum(one.text == uncut for one in told) >= ALIKE
