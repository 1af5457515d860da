"""The asyncio client: the thin shell that does the I/O of `AsyncClient` and `AsyncChatStream`.

What a request, a stream or a failure means is decided elsewhere; `modelrouter.client` is the same shell for
programs that block.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc
from grpc import aio

from modelrouter.answers import Answer, Model
from modelrouter.connection import ConnectOptions, Metadata, connection
from modelrouter.embeddings import Embeddings
from modelrouter.errors import Cancelled
from modelrouter.options import ChatOptions, EmbedOptions, StreamOptions
from modelrouter.reading import OnReset, Reading, Way
from modelrouter.requests import Inputs, Messages, chat_request, embed_request
from modelrouter.status import from_rpc_error
from modelrouter.v1 import chat_pb2, models_pb2
from modelrouter.v1.service_pb2_grpc import ModelRouterServiceStub

if TYPE_CHECKING:
    from modelrouter.v1.service_pb2_grpc import ModelRouterServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Item = TypeVar("_Item")
_StreamCall = aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.StreamChatResponse]


class AsyncClient:
    """A model router, for asyncio programs; `modelrouter.Client` describes the arguments.

    The channel belongs to the event loop of the first call.
    """

    def __init__(self, target: str | None = None, **options: Unpack[ConnectOptions]) -> None:
        self._connection = connection(target, options)

    @property
    def target(self) -> str:
        """Where the router is."""
        return self._connection.target

    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the server is told of it, too
        metadata: Metadata | None = None,
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """Return one complete answer; ``model`` is a route, by default ``chat``."""
        request = chat_request(messages, model, options)
        return Answer(await self._call(self._stub.Chat, request, timeout, metadata))

    def stream_chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        on_reset: OnReset | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncChatStream:
        """Return an answer that comes in pieces, as `modelrouter.Client.stream_chat` does."""
        request = chat_request(messages, model, options)
        arguments = self._connection.arguments(timeout, metadata)
        return AsyncChatStream(
            lambda: self._stub.StreamChat(request, **arguments), Reading(request, self.target, on_reset)
        )

    async def embed(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the server is told of it, too
        metadata: Metadata | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Return one vector per input; ``model`` is a route, by default ``embed``."""
        request = embed_request(inputs, model, options)
        return Embeddings(await self._call(self._stub.Embed, request, timeout, metadata), len(request.inputs))

    async def models(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server is told of it, too
        metadata: Metadata | None = None,
    ) -> list[Model]:
        """Return the routes that may be named in ``model``."""
        answer = await self._call(self._stub.ListModels, models_pb2.ListModelsRequest(), timeout, metadata)
        return [Model.of(model) for model in answer.models]

    async def close(self) -> None:
        """Cancel what is under way and close the connection."""
        if "_channel" in self.__dict__:
            await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _channel(self) -> aio.Channel:
        at, credentials, settings = (
            self._connection.target,
            self._connection.credentials,
            self._connection.channel_options,
        )
        if credentials is None:
            return aio.insecure_channel(at, settings)
        return aio.secure_channel(at, credentials, settings)

    @cached_property
    def _stub(self) -> ModelRouterServiceAsyncStub:
        return ModelRouterServiceStub(self._channel)

    async def _call(
        self,
        method: aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,  # noqa: ASYNC109 - the server is told of it, too
        metadata: Metadata | None,
    ) -> _Response:
        try:
            return await method(request, **self._connection.arguments(timeout, metadata))
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target) from error


class AsyncChatStream:
    """An answer that comes in pieces, to be read once; `modelrouter.ChatStream` describes the three ways."""

    def __init__(self, start: Callable[[], _StreamCall], reading: Reading) -> None:
        self._start = start
        self._reading = reading
        self._call: _StreamCall | None = None
        self._cancelled = False

    @property
    def answer(self) -> Answer:
        """The whole answer, usage and route included, once the stream was read to its end.

        Raises:
            RuntimeError: it was not.
        """
        return self._reading.answer

    def __aiter__(self) -> AsyncIterator[str]:
        self._reading.begin(Way.TEXT)
        return self._read(self._reading.text)

    def events(self) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        """Iterate over the stream's events."""
        self._reading.begin(Way.EVENTS)
        return self._read(self._reading.event)

    async def result(self) -> Answer:
        """Wait for the whole answer and return it."""
        self._reading.begin(Way.RESULT)
        async for _ in self._read(self._reading.event):
            pass
        return self._reading.answer

    def cancel(self) -> None:
        """Cancel the call; whoever reads the stream gets `Cancelled`."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        """Cancel the call unless it is over."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def _read(self, take: Callable[[chat_pb2.StreamChatResponse], _Item]) -> AsyncIterator[_Item]:
        call = self._call = self._start()
        try:
            if self._cancelled:
                call.cancel()
            async for event in call:
                if item := take(event):
                    yield item
            self._reading.end()
        except grpc.RpcError as error:
            raise self._reading.failed(error) from error
        except asyncio.CancelledError:
            if self._cancelled and not _is_task_cancelled():
                raise Cancelled("the stream was cancelled", code=grpc.StatusCode.CANCELLED) from None
            raise
        finally:
            call.cancel()


def _is_task_cancelled() -> bool:
    """Tell a cancelled task from a cancelled RPC: grpc.aio raises CancelledError for both."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
