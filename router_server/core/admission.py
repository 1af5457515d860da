"""The door before the router: whoever may not name a route does not reach it.

Made only where callers are known or limited; where they are not, calls go to the router itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from router_server.core.errors import Reason, RouterError
from router_server.core.results import ChatResult, EmbedResult, Invocation, ModelInfo, StreamEvent
from router_server.core.service import CallRouter
from router_server.core.types import ChatRequest, EmbedRequest


class Admission:
    """Lets calls through to a router.

    Args:
        router: answers them.
        canonical: gives a route's own name for whatever callers may name it, or that again.
        authenticated: refuse whoever is not known, whichever edge the call came by.
    """

    def __init__(self, router: CallRouter, canonical: Callable[[str], str], *, authenticated: bool) -> None:
        self._router = router
        self._canonical = canonical
        self._authenticated = authenticated

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        """Return the whole answer.

        Raises:
            RouterError: what the caller is told.
        """
        self._check(request.model, invocation)
        return await self._router.chat(request, invocation)

    async def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one streamed answer; closing the generator ends the call.

        Raises:
            RouterError: what the caller is told, before or after the first event.
        """
        self._check(request.model, invocation)
        async with aclosing(self._router.stream(request, invocation)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        """Return one vector per input, all or nothing.

        Raises:
            RouterError: what the caller is told.
        """
        self._check(request.model, invocation)
        return await self._router.embed(request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return every route; who may name which is the caller's own matter."""
        return self._router.models()

    def _check(self, model: str, invocation: Invocation) -> None:
        principal = invocation.principal
        if principal is None:
            if self._authenticated:
                raise RouterError(Reason.UNAUTHENTICATED, "The caller is not known here; show a key.")
            return
        if not principal.may_call(self._canonical(model)):
            raise RouterError(
                Reason.PERMISSION_DENIED,
                "This caller may not use the route that was given in model. ListModels tells which it may.",
                metadata={"principal": principal.subject},
            )
