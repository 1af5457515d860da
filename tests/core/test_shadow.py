"""Copies of calls: sent beside, bounded, counted, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest

from router_server.core.errors import Reason, RouterError
from router_server.core.results import Invocation, ModelInfo
from router_server.core.shadow import Shadows, ShadowSettings
from router_server.core.types import ChatRequest, EmbedRequest, Routing


@dataclass
class Answering:
    """A router that answers when ``go`` is set, or raises ``error``."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None
    asked: list[tuple[str, ChatRequest | EmbedRequest]] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)
    ended: int = 0

    async def chat(self, request: ChatRequest, invocation: Invocation) -> Any:
        return await self._answer(request, invocation)

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> Any:
        return await self._answer(request, invocation)

    async def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[Any, None]:
        yield await self._answer(request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        return ()

    async def _answer(self, request: ChatRequest | EmbedRequest, invocation: Invocation) -> Any:
        self.asked.append((invocation.call_id, request))
        self.timeouts.append(invocation.timeout)
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return invocation.call_id


def shadows(router: Answering, copies: Answering, *, share: float = 1.0, most: int = 2) -> Shadows:
    router.go.set()
    settings = ShadowSettings("chat", ("chat", "alias"), share, most)
    return Shadows(router, copies, [settings], lambda: 0.5)


async def answer_of(call: Awaitable[object]) -> str:
    return str(await call)


def of(model: str = "chat", call_id: str = "1") -> tuple[ChatRequest, Invocation]:
    request = ChatRequest(model, (), routing=Routing(priority=7, allow_failover=False), idempotency_key="k")
    return request, Invocation(call_id, 3.0)


async def test_a_call_is_answered_while_its_copy_runs() -> None:
    router, copies = Answering(), Answering()
    it = shadows(router, copies)
    assert await answer_of(it.chat(*of())) == "1"
    await asyncio.sleep(0)
    ((call_id, copy),) = copies.asked
    assert (call_id, copy.model, copy.routing, copy.idempotency_key) == ("1-shadow", "chat", Routing(), "")
    assert router.asked[0][1].routing.priority == 7
    assert (router.timeouts, copies.timeouts) == ([3.0], [None])
    (count,) = it.counts
    assert (count.sent, count.dropped, count.running) == (1, 0, 1)
    await it.close()
    assert copies.ended == 1
    assert count.running == 0


async def test_copies_are_bounded_and_the_rest_is_counted() -> None:
    copies = Answering()
    it = shadows(Answering(), copies)
    for call in range(5):
        await it.chat(*of("alias", str(call)))
    (count,) = it.counts
    assert (count.sent, count.dropped, count.running) == (2, 3, 2)
    copies.go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert count.running == 0
    await it.chat(*of())
    assert count.sent == 3
    await it.close()


async def test_streams_and_embeddings_cast_shadows_too() -> None:
    copies = Answering()
    copies.go.set()
    it = shadows(Answering(), copies)
    assert [str(event) async for event in it.stream(*of())] == ["1"]
    assert await answer_of(it.embed(EmbedRequest("chat", ("x",)), Invocation("2"))) == "2"
    for _ in range(5):
        await asyncio.sleep(0)
    assert [type(request) for _id, request in copies.asked] == [ChatRequest, EmbedRequest]
    assert copies.ended == 2


async def test_other_routes_and_other_calls_cast_none() -> None:
    copies = Answering()
    it = shadows(Answering(), copies, share=0.5)
    await it.chat(*of())
    await shadows(Answering(), copies, share=0.6).chat(*of("other"))
    await asyncio.sleep(0)
    assert copies.asked == []


@pytest.mark.parametrize("error", [RouterError(Reason.ALL_TARGETS_FAILED, "down"), ValueError("a bug")])
async def test_what_a_copy_raises_reaches_nobody(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    copies = Answering(error=error)
    copies.go.set()
    it = shadows(Answering(), copies)
    assert await answer_of(it.chat(*of())) == "1"
    for _ in range(5):
        await asyncio.sleep(0)
    assert it.counts[0].running == 0
    assert ("a way that no call may" in caplog.text) == isinstance(error, ValueError)


async def test_a_copy_that_never_began_is_ended_too() -> None:
    copies = Answering()
    it = shadows(Answering(), copies)
    it.stream(*of())
    await it.close()
    assert it.counts[0].running == 0
