"""One router after another, and no call lost in between: each call stays with the router that took it.

A router that was replaced is done with once its last call has ended; only then may be closed what it alone
used. Refuses to know why routers change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from router_server.core.results import ChatResult, EmbedResult, Invocation, ModelInfo, StreamEvent
from router_server.core.service import CallRouter
from router_server.core.types import ChatRequest, EmbedRequest


class Tenure:
    """A router, from its first call to the last one that it took."""

    def __init__(self, router: CallRouter) -> None:
        self.router = router
        self.calls = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def vacated(self) -> None:
        """Return once no call of it runs; for a router that takes no more."""
        await self._empty.wait()

    def enter(self) -> None:
        """A call begins."""
        if not self.calls:
            self._empty.clear()
        self.calls += 1

    def leave(self) -> None:
        """A call has ended."""
        self.calls -= 1
        if not self.calls:
            self._empty.set()

    @contextmanager
    def call(self) -> Iterator[CallRouter]:
        """Give the router for the length of one call."""
        self.enter()
        try:
            yield self.router
        finally:
            self.leave()


class Handover:
    """Sends each call to the router that is in office when it begins."""

    def __init__(self, router: CallRouter) -> None:
        self._tenure = Tenure(router)

    def hand_over(self, router: CallRouter) -> Tenure:
        """Put ``router`` into office; return the tenure that ends."""
        ending, self._tenure = self._tenure, Tenure(router)
        return ending

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return the whole answer.

        Raises:
            RouterError: see `CallRouter`.
        """
        tenure = self._tenure
        tenure.enter()
        try:
            return await tenure.router.chat(request, invocation)
        finally:
            tenure.leave()

    def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one streamed answer; the call lasts until ``aclose``, which must be called.

        Raises:
            RouterError: see `CallRouter`.
        """
        return _HeldStream(self._tenure, request, invocation)

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input.

        Raises:
            RouterError: see `CallRouter`.
        """
        tenure = self._tenure
        tenure.enter()
        try:
            return await tenure.router.embed(request, invocation)
        finally:
            tenure.leave()

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes that callers may name now."""
        return self._tenure.router.models()


class _HeldStream(AsyncGenerator[StreamEvent, None]):
    """A stream that holds its tenure. No generator around a generator: each event would pass through both.

    Who iterates it is given what it holds: no event passes by here, only ``aclose``.
    """

    def __init__(self, tenure: Tenure, request: ChatRequest, invocation: Invocation) -> None:
        self._events = tenure.router.stream(request, invocation)
        self._tenure: Tenure | None = tenure
        tenure.enter()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self._events

    def __anext__(self) -> Any:
        return self._events.__anext__()

    def asend(self, value: None) -> Any:
        return self._events.asend(value)

    def athrow(self, *error: Any) -> Any:
        return self._events.athrow(*error)

    async def aclose(self) -> None:
        try:
            await self._events.aclose()
        finally:
            tenure, self._tenure = self._tenure, None
            if tenure is not None:
                tenure.leave()
