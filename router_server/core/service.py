"""What the edge asks of the core: the four questions of the router's service.

A leaf: only the shape, so that every edge is written and tested against it. Refuses to know who asks, and
on which wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from router_server.core.results import ChatResult, EmbedResult, Invocation, ModelInfo, StreamEvent
from router_server.core.types import ChatRequest, EmbedRequest


class CallRouter(Protocol):
    """Routes calls; every failure is a `RouterError`, and cancelling a call frees all that it holds."""

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return the whole answer.

        Raises:
            RouterError: no target answered.
        """

    def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield ``started (delta | heartbeat | reset)* finished``.

        Its ``aclose`` ends the call: it closes the upstream and releases every permit. Its ``asend`` may be
        given a `Give`, to which an event may be given in place of being yielded while the next is waited for.

        Raises:
            RouterError: before the first event no target answered, afterwards the stream broke.
        """

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input, in order.

        Raises:
            RouterError: no target answered.
        """

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the routes that callers may name."""
