"""The blocking client: the thin shell that does the I/O of `Client` and `ChatStream`.

What a request, a stream or a failure means is decided elsewhere; `modelrouter.aio` is the same shell for
asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar, Unpack

import grpc

from modelrouter.answers import Answer, Model
from modelrouter.connection import ConnectOptions, Metadata, connection
from modelrouter.embeddings import Embeddings
from modelrouter.options import ChatOptions, EmbedOptions, StreamOptions
from modelrouter.reading import OnReset, Reading, Way
from modelrouter.requests import Inputs, Messages, chat_request, embed_request
from modelrouter.status import from_rpc_error
from modelrouter.v1 import chat_pb2, models_pb2
from modelrouter.v1.service_pb2_grpc import ModelRouterServiceStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Item = TypeVar("_Item")


class _StreamCall(Protocol):
    """What is used of gRPC's own call object."""

    def __iter__(self) -> Iterator[chat_pb2.StreamChatResponse]: ...

    def cancel(self) -> object: ...


class Client:
    """A model router, for programs that wait for their answers. Safe to share between threads.

    Every call raises a `modelrouter.ModelRouterError` when it fails, takes ``timeout`` in seconds, and
    ``metadata`` to send along.

    Args:
        target: ``host:port``; by default $MODELROUTER_TARGET, else 127.0.0.1:50051.
        **options: see `modelrouter.connection.ConnectOptions`.

    Raises:
        ValueError: the target is no address, or a key would travel over plain text.
    """

    def __init__(self, target: str | None = None, **options: Unpack[ConnectOptions]) -> None:
        self._connection = connection(target, options)
        at, credentials, settings = (
            self._connection.target,
            self._connection.credentials,
            self._connection.channel_options,
        )
        self._channel = (
            grpc.secure_channel(at, credentials, settings)
            if credentials
            else grpc.insecure_channel(at, settings)
        )
        self._stub = ModelRouterServiceStub(self._channel)

    @property
    def target(self) -> str:
        """Where the router is."""
        return self._connection.target

    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """Return one complete answer; ``model`` is a route, by default ``chat``."""
        request = chat_request(messages, model, options)
        return Answer(self._call(self._stub.Chat, request, timeout, metadata))

    def stream_chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        on_reset: OnReset | None = None,
        **options: Unpack[StreamOptions],
    ) -> ChatStream:
        """Return an answer that comes in pieces; nothing is sent before it is read.

        Args:
            messages: as for `chat`.
            model: as for `chat`.
            timeout: seconds for the whole stream.
            metadata: sent along.
            on_reset: called while the text is iterated over, when the pieces so far are to be forgotten
                because another target starts over. Without it such a break raises `StreamInterrupted`.
            **options: see `modelrouter.options.StreamOptions`.
        """
        request = chat_request(messages, model, options)
        arguments = self._connection.arguments(timeout, metadata)
        return ChatStream(
            lambda: self._stub.StreamChat(request, **arguments),
            Reading(request, self.target, on_reset),
        )

    def embed(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Return one vector per input; ``model`` is a route, by default ``embed``."""
        request = embed_request(inputs, model, options)
        return Embeddings(self._call(self._stub.Embed, request, timeout, metadata), len(request.inputs))

    def models(self, *, timeout: float | None = None, metadata: Metadata | None = None) -> list[Model]:
        """Return the routes that may be named in ``model``."""
        answer = self._call(self._stub.ListModels, models_pb2.ListModelsRequest(), timeout, metadata)
        return [Model.of(model) for model in answer.models]

    def close(self) -> None:
        """Cancel what is under way and close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> _Response:
        try:
            return method(request, **self._connection.arguments(timeout, metadata))
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.target) from error


class ChatStream:
    """An answer that comes in pieces. Read it once, in one of three ways.

    - ``for piece in stream``: its text. A break raises `StreamInterrupted` with the text so far, unless
      ``on_reset`` was given.
    - ``for event in stream.events()``: what the router sends, resets included.
    - ``stream.result()``: the whole answer.

    Leaving the context manager, or breaking out of a loop over it, cancels the call.
    """

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

    def __iter__(self) -> Iterator[str]:
        self._reading.begin(Way.TEXT)
        return self._read(self._reading.text)

    def events(self) -> Iterator[chat_pb2.StreamChatResponse]:
        """Iterate over the stream's events."""
        self._reading.begin(Way.EVENTS)
        return self._read(self._reading.event)

    def result(self) -> Answer:
        """Wait for the whole answer and return it."""
        self._reading.begin(Way.RESULT)
        for _ in self._read(self._reading.event):
            pass
        return self._reading.answer

    def cancel(self) -> None:
        """Cancel the call; whoever reads the stream gets `Cancelled`. May be called from another thread."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _read(self, take: Callable[[chat_pb2.StreamChatResponse], _Item]) -> Iterator[_Item]:
        call = self._call = self._start()
        try:
            if self._cancelled:
                call.cancel()
            for event in call:
                if item := take(event):
                    yield item
            self._reading.end()
        except grpc.RpcError as error:
            raise self._reading.failed(error) from error
        finally:
            call.cancel()
