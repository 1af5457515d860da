"""RESUME against real vLLM: a stream that breaks goes on where it stopped, as if it had not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

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


@pytest_asyncio.fixture(loop_scope="session")
async def cut(engines: Engines) -> AsyncIterator[Cut]:
    async with Proxy(engines.first.socket) as breaking, Proxy(engines.first.socket) as whole:
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


async def test_forty_cuts(cut: Cut) -> None:
    uncut = (await tell(cut.client)).text
    alike = resumed = 0
    for number in range(CUTS):
        after = 1 + len(uncut) * number // CUTS
        cut.breaking.expect(cut_after=after, surplus=number % 5 * 20, reset=number % 2 == 1)
        cut.whole.expect()
        told = await tell(cut.client)
        assert cut.breaking.chat is not None
        assert cut.whole.chat is not None
        # Nothing lost and nothing twice: what the caller had is what vLLM was asked to continue, and what
        # came then is what it said.
        assert cut.breaking.chat.said.startswith(told.before)
        assert told.after == cut.whole.chat.said
        assert cut.whole.chat.continues == (told.before if told.resumed else None)
        resumed += told.resumed is True
        alike += told.text == uncut
    assert resumed >= ALIKE
    assert alike >= ALIKE
