"""Shadows: a share of a route's calls is sent to another target too, and what that answers is thrown away.

A copy is made without waiting, runs beside the call, and can neither delay nor fail it: it has places of its
own, and where none is free it is dropped and counted. Refuses to compare answers; traces and metrics have
the copies' numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from router_server.core.errors import RouterError
from router_server.core.record import replace
from router_server.core.results import ChatResult, EmbedResult, Invocation, ModelInfo, StreamEvent
from router_server.core.service import CallRouter
from router_server.core.types import ChatRequest, EmbedRequest, Routing

_R = TypeVar("_R", ChatRequest, EmbedRequest)

_Send = Callable[[_R, Invocation], Coroutine[None, None, None]]

_log = logging.getLogger(__name__)

SHADOW = "shadow"
"""The arm of a copy, where calls are told apart."""


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """What the configuration says of one route's shadow.

    Attributes:
        route: whose calls are copied.
        names: what callers call it.
        share: of the calls that are copied, 0 to 1.
        max_concurrency: copies at once.
    """

    route: str
    names: tuple[str, ...]
    share: float
    max_concurrency: int


@dataclass(slots=True)
class ShadowCount:
    """What became of one route's copies so far."""

    route: str
    sent: int = 0
    dropped: int = 0
    running: int = 0


class Shadows:
    """A router whose calls cast shadows.

    Args:
        router: answers.
        copies: routes the copies, under the names of the routes.
        settings: one for each route that has a shadow.
        chance: gives a number from 0 up to, and without, 1.
        before: whom these follow; its copies that still run take places here too.
    """

    def __init__(
        self,
        router: CallRouter,
        copies: CallRouter,
        settings: Sequence[ShadowSettings],
        chance: Callable[[], float],
        before: Shadows | None = None,
    ) -> None:
        self._router = router
        self._copies = copies
        self._settings: Mapping[str, ShadowSettings] = {n: one for one in settings for n in one.names}
        counted = {one.route: one for one in before.counts} if before else {}
        self._counts: Mapping[str, ShadowCount] = {
            one.route: counted.get(one.route, ShadowCount(one.route)) for one in settings
        }
        self._chance = chance
        self._running: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> Sequence[ShadowCount]:
        """What became of the copies, by route."""
        return tuple(self._counts.values())

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return one whole answer.

        Raises:
            RouterError: see `CallRouter`.
        """
        self._copy(request, invocation, self._chat)
        return await self._router.chat(request, invocation)

    def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one answer.

        Raises:
            RouterError: see `CallRouter`.
        """
        self._copy(request, invocation, self._stream)
        return self._router.stream(request, invocation)

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input.

        Raises:
            RouterError: see `CallRouter`.
        """
        self._copy(request, invocation, self._embed)
        return await self._router.embed(request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes that callers may name."""
        return self._router.models()

    async def ended(self) -> None:
        """Return once no copy runs; for shadows whose router takes no more calls."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """End the copies that run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _copy(
        self,
        request: _R,
        invocation: Invocation,
        send: Callable[[_R, Invocation], Coroutine[None, None, None]],
    ) -> None:
        settings = self._settings.get(request.model)
        if settings is None or self._chance() >= settings.share:
            return
        count = self._counts[settings.route]
        if count.running >= settings.max_concurrency:
            count.dropped += 1
            return
        count.sent += 1
        count.running += 1
        # The caller's own haste and wishes are not the copy's: it has the time of a call that names none.
        copy = replace(request, routing=Routing(), idempotency_key="")
        call_id = f"{invocation.call_id}-{SHADOW}"
        task = asyncio.create_task(send(copy, Invocation(call_id)), name=call_id)
        self._running.add(task)
        task.add_done_callback(partial(self._ended, count))

    def _ended(self, count: ShadowCount, task: asyncio.Task[None]) -> None:
        count.running -= 1
        self._running.discard(task)
        if not task.cancelled() and not isinstance(error := task.exception(), RouterError | None):
            _log.error("A shadow failed in a way that no call may.", exc_info=error)

    async def _chat(self, request: ChatRequest, invocation: Invocation) -> None:
        await self._copies.chat(request, invocation)

    async def _embed(self, request: EmbedRequest, invocation: Invocation) -> None:
        await self._copies.embed(request, invocation)

    async def _stream(self, request: ChatRequest, invocation: Invocation) -> None:
        async with aclosing(self._copies.stream(request, invocation)) as events:
            async for _event in events:
                pass
