"""The blocking and the asyncio client behind one face, so that each test is written once and run for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from modelrouter import Answer, AsyncChatStream, AsyncClient, ChatStream, Client, Embeddings, Model
from modelrouter.v1 import chat_pb2

_T = TypeVar("_T")


class Shell(Protocol):
    """What the tests do with a client; each stream method opens a stream and reads it one way."""

    async def chat(self, *arguments: Any, **options: Any) -> Answer: ...

    async def embed(self, *arguments: Any, **options: Any) -> Embeddings: ...

    async def models(self, **options: Any) -> list[Model]: ...

    def stream(self, *arguments: Any, **options: Any) -> Any: ...

    async def result(self, stream: Any) -> Answer: ...

    async def texts(self, stream: Any, into: list[str]) -> None:
        """Append the pieces as they come."""

    async def events(self, stream: Any, into: list[chat_pb2.StreamChatResponse]) -> None:
        """Append the events as they come."""

    async def first(self, stream: Any) -> str:
        """Read one piece and break out of the loop."""

    async def leave(self, stream: Any) -> str:
        """Read one piece within the stream's context manager and leave that, keeping the iterator."""

    async def cancel_while_reading(self, stream: Any) -> None:
        """Read on, and cancel from elsewhere once the first piece is there."""


class Blocking:
    """`Client`, on a thread."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def chat(self, *arguments: Any, **options: Any) -> Answer:
        return await _threaded(lambda: self.client.chat(*arguments, **options))

    async def embed(self, *arguments: Any, **options: Any) -> Embeddings:
        return await _threaded(lambda: self.client.embed(*arguments, **options))

    async def models(self, **options: Any) -> list[Model]:
        return await _threaded(lambda: self.client.models(**options))

    def stream(self, *arguments: Any, **options: Any) -> ChatStream:
        return self.client.stream_chat(*arguments, **options)

    async def result(self, stream: ChatStream) -> Answer:
        return await _threaded(stream.result)

    async def texts(self, stream: ChatStream, into: list[str]) -> None:
        await _threaded(lambda: into.extend(stream))

    async def events(self, stream: ChatStream, into: list[chat_pb2.StreamChatResponse]) -> None:
        await _threaded(lambda: into.extend(stream.events()))

    async def first(self, stream: ChatStream) -> str:
        def read() -> str:
            for piece in stream:
                return piece
            raise AssertionError

        return await _threaded(read)

    async def leave(self, stream: ChatStream) -> str:
        pieces = iter(stream)

        def read() -> str:
            with stream:
                return next(pieces)

        return await _threaded(read)

    async def cancel_while_reading(self, stream: ChatStream) -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def read() -> None:
            for _ in stream:
                loop.call_soon_threadsafe(begun.set)

        reading = asyncio.create_task(_threaded(read))
        await begun.wait()
        stream.cancel()
        await reading


class Asyncio:
    """`AsyncClient`, as it is."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def chat(self, *arguments: Any, **options: Any) -> Answer:
        return await self.client.chat(*arguments, **options)

    async def embed(self, *arguments: Any, **options: Any) -> Embeddings:
        return await self.client.embed(*arguments, **options)

    async def models(self, **options: Any) -> list[Model]:
        return await self.client.models(**options)

    def stream(self, *arguments: Any, **options: Any) -> AsyncChatStream:
        return self.client.stream_chat(*arguments, **options)

    async def result(self, stream: AsyncChatStream) -> Answer:
        return await stream.result()

    async def texts(self, stream: AsyncChatStream, into: list[str]) -> None:
        async for piece in stream:
            into.append(piece)  # noqa: PERF401 - what came before an error must be there, too

    async def events(self, stream: AsyncChatStream, into: list[chat_pb2.StreamChatResponse]) -> None:
        async for event in stream.events():
            into.append(event)  # noqa: PERF401 - what came before an error must be there, too

    async def first(self, stream: AsyncChatStream) -> str:
        async for piece in stream:
            return piece
        raise AssertionError

    async def leave(self, stream: AsyncChatStream) -> str:
        pieces = aiter(stream)
        async with stream:
            return await anext(pieces)

    async def cancel_while_reading(self, stream: AsyncChatStream) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        stream.cancel()
        await reading


async def _threaded(function: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(None, function)


@asynccontextmanager
async def opened(kind: str, target: str, **options: Any) -> AsyncIterator[Shell]:
    """Open one of the two clients: ``blocking`` or ``asyncio``."""
    if kind == "blocking":
        with Client(target, **options) as client:
            yield Blocking(client)
    else:
        async with AsyncClient(target, **options) as client:
            yield Asyncio(client)
