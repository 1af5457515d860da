"""The router's service: each RPC is a request read, a question to the core, an answer written.

Refuses to know how messages and failures travel: the guard does that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Final, cast

from grpc import aio

from modelrouter.v1 import chat_pb2, embed_pb2, models_pb2
from modelrouter.v1.service_pb2_grpc import ModelRouterServiceServicer
from router_server.core.results import Finished, Give, Invocation, Reset, Started, StreamEvent
from router_server.core.service import CallRouter
from router_server.rpc.convert.answers import write_chat, write_event, write_models
from router_server.rpc.convert.chat import read_chat
from router_server.rpc.convert.embed import read_embed, refuse_large_answer, write_embed
from router_server.rpc.current import Rpc, current_rpc
from router_server.rpc.writing import Put

Context = aio.ServicerContext[Any, Any]
_Events = AsyncGenerator[StreamEvent, Give | None]

_WITH_TRAIL: Final = (Started, Reset, Finished)
"""Made once: the union of three types, made for each token, would take longer than to look at one."""

WRITTEN: Final = frozenset({"Embed", "StreamChat"})
"""The RPCs whose answers are the bytes of their messages already."""


class ModelRouterService(ModelRouterServiceServicer):
    """Answers the four RPCs of the contract.

    Args:
        router: who knows the answers.
        max_send_bytes: the largest message that this server sends.
    """

    def __init__(self, router: CallRouter, *, max_send_bytes: int) -> None:
        self._router = router
        self._max_send_bytes = max_send_bytes

    async def Chat(  # noqa: N802 - the contract's name
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> chat_pb2.ChatResponse:
        """Return one complete answer."""
        result = await self._router.chat(read_chat(request), _invocation(context))
        current_rpc().trail = result.trail
        return write_chat(result)

    async def StreamChat(  # type: ignore[override]  # noqa: N802 - as for Embed
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncGenerator[bytes, Put | None]:
        """Yield the answer as it arrives; what can be put on its way at once is not yielded.

        As bytes, since the last message is kept until the next: a KiB of each stream that idles.
        """
        rpc = current_rpc()
        stream = cast("_Events", self._router.stream(read_chat(request), _invocation(context)))
        give: Give | None = None
        async with aclosing(stream) as events:
            try:
                while True:
                    put = yield _written(rpc, await events.asend(give))
                    give = None if put is None else partial(_give, rpc, put)
            except StopAsyncIteration:
                return

    async def Embed(  # type: ignore[override]  # noqa: N802 - see `WRITTEN`; the contract's name
        self, request: embed_pb2.EmbedRequest, context: Context
    ) -> bytes:
        """Return one vector per input, as the bytes of an EmbedResponse."""
        embed, encoding = read_embed(request)
        count, most = len(embed.inputs), self._max_send_bytes
        if embed.dimensions is not None:
            refuse_large_answer(count, embed.dimensions, encoding, most)
        result = await self._router.embed(embed, _invocation(context))
        refuse_large_answer(count, result.vectors.dimensions, encoding, most)
        current_rpc().trail = result.trail
        return write_embed(result, encoding)

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """Return the routes that this caller may name."""
        del request, context
        principal, models = current_rpc().principal, self._router.models()
        if principal is not None:
            models = tuple(model for model in models if principal.may_call(model.name))
        return write_models(models)


def _written(rpc: Rpc, event: StreamEvent) -> bytes:
    if isinstance(event, _WITH_TRAIL):
        rpc.trail = event.trail
    return write_event(event).SerializeToString()


def _give(rpc: Rpc, put: Put, event: StreamEvent) -> bool:
    return put(_written(rpc, event))


def _invocation(context: Context) -> Invocation:
    rpc = current_rpc()
    return Invocation(rpc.call_id, context.time_remaining(), rpc.principal, rpc.stands)
