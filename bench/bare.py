"""The bare pipeline: what a call costs in Python when nothing but the call is done.

grpc.aio, aiohttp, msgspec and uvloop: it parses the request, asks the upstream, and converts the answer.
It is written to be fast, the way one would write it with no feature in mind: no validation, no limits, no
timers, no retries, no records, no telemetry. The router's cost is stated as a multiple of this.

FROZEN: it is the measure, so it does not change; a test holds its hash. A faster trick goes into the router.

    python -m bench.bare --listen 127.0.0.1:50061 --upstream http://127.0.0.1:8000/v1 [--variant …]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from grpc import aio
from yarl import URL

from modelrouter.v1 import chat_pb2, embed_pb2
from modelrouter.v1.service_pb2_grpc import (
    ModelRouterServiceServicer,
    add_ModelRouterServiceServicer_to_server,
)

_ROLES: Final = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_FINISHES: Final = {
    "stop": chat_pb2.FINISH_REASON_STOP,
    "length": chat_pb2.FINISH_REASON_LENGTH,
    "tool_calls": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER,
}
_FLOAT_BYTES: Final = 4
_DIMENSIONS: Final = 1_536
_READY_MATRIX: Final = bytes(64 * _DIMENSIONS * _FLOAT_BYTES)

Context = aio.ServicerContext[Any, Any]


class _Message(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _Vector(msgspec.Struct, gc=False):
    embedding: bytes


class _Vectors(msgspec.Struct, gc=False):
    data: list[_Vector]
    model: str = ""
    usage: _Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_VECTORS: Final = msgspec.json.Decoder(_Vectors)
_ENCODER: Final = msgspec.json.Encoder()


class Bare(ModelRouterServiceServicer):
    """Chat, StreamChat and Embed on an OpenAI-like upstream."""

    def __init__(self, upstream: str) -> None:
        self._chat = URL(f"{upstream}/chat/completions")
        self._embeddings = URL(f"{upstream}/embeddings")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Content-Type": "application/json", "Authorization": "Bearer sk-bench"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def Chat(self, request: chat_pb2.ChatRequest, context: Context) -> chat_pb2.ChatResponse:
        """Answer at once."""
        async with self._session.post(self._chat, data=_chat_body(request)) as response:
            answer = _ANSWER.decode(await response.read())
        choice = answer.choices[0]
        reply = chat_pb2.ChatResponse(
            id=answer.id, model=request.model, finish_reason=_FINISHES[choice.finish_reason or "stop"]
        )
        reply.message.role = chat_pb2.ROLE_ASSISTANT
        assert choice.message is not None  # noqa: S101 - for the type checker
        reply.message.content.add().text = choice.message.content or ""
        _write_usage(answer.usage, reply.usage)
        reply.route.upstream_model = answer.model
        return reply

    async def StreamChat(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        """Answer as the tokens come; those that are there together leave together."""
        finish, usage, started = "stop", None, False
        async with self._session.post(self._chat, data=_stream_body(request)) as response:
            async for events in _events(response.content):
                texts = []
                for event in events:
                    for choice in event.choices:
                        if choice.delta is not None and choice.delta.content:
                            texts.append(choice.delta.content)
                        finish = choice.finish_reason or finish
                    usage = event.usage or usage
                if texts:
                    if not started:
                        started = True
                        yield _started(request, events[0])
                    yield _delta("".join(texts))
        yield _finished(finish, usage)

    async def Embed(self, request: embed_pb2.EmbedRequest, context: Context) -> embed_pb2.EmbedResponse:
        """Answer with vectors, as bytes or as floats."""
        body = {
            "model": request.model,
            "input": [item.text for item in request.inputs],
            "encoding_format": "base64",
        }
        async with self._session.post(self._embeddings, data=_ENCODER.encode(body)) as response:
            answer = _VECTORS.decode(await response.read())
        rows = [vector.embedding for vector in answer.data]
        size = len(rows[0])
        reply = embed_pb2.EmbedResponse(model=request.model, dimensions=size // _FLOAT_BYTES)
        _write_usage(answer.usage, reply.usage)
        if request.encoding == embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES:
            reply.matrix_le_f32 = b"".join(rows)
        else:
            # A packed repeated float is little-endian float32 on the wire: no number becomes a Python float.
            head = b"\x0a" + _varint(size)
            for row in rows:
                reply.embeddings.add().MergeFromString(head + row)
        return reply

    async def close(self) -> None:
        """Close the connections to the upstream."""
        await self._session.close()


class Unmerged(Bare):
    """As `Bare`, but every token is a message of its own, and Embed copies what the upstream has ready."""

    async def StreamChat(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        """Answer as the tokens come."""
        finish, usage, started = "stop", None, False
        async with self._session.post(self._chat, data=_stream_body(request)) as response:
            async for events in _events(response.content):
                for event in events:
                    usage = event.usage or usage
                    for choice in event.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta is None or not choice.delta.content:
                            continue
                        if not started:
                            started = True
                            yield _started(request, event)
                        yield _delta(choice.delta.content)
        yield _finished(finish, usage)

    async def Embed(self, request: embed_pb2.EmbedRequest, context: Context) -> embed_pb2.EmbedResponse:
        """Answer with the upstream's body as it is: a buffer of little-endian float32."""
        async with self._session.post(self._embeddings, data=b"{}") as response:
            matrix = await response.read()
        return embed_pb2.EmbedResponse(model=request.model, dimensions=_DIMENSIONS, matrix_le_f32=matrix)


class Echo(ModelRouterServiceServicer):
    """The same messages with no upstream: what grpc.aio itself costs."""

    def __init__(self, upstream: str) -> None:
        del upstream

    async def Chat(self, request: chat_pb2.ChatRequest, context: Context) -> chat_pb2.ChatResponse:
        """Answer with the last message."""
        reply = chat_pb2.ChatResponse(id="echo", model=request.model)
        reply.message.role = chat_pb2.ROLE_ASSISTANT
        reply.message.content.add().text = request.messages[-1].content[0].text
        return reply

    async def StreamChat(
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        """Answer with the last message, in the three events of the shortest stream."""
        yield _started(request, _Answer())
        yield _delta(request.messages[-1].content[0].text)
        yield _finished("stop", None)

    async def Embed(self, request: embed_pb2.EmbedRequest, context: Context) -> embed_pb2.EmbedResponse:
        """Answer with a buffer of 64 x 1,536 numbers that is ready."""
        return embed_pb2.EmbedResponse(
            model=request.model, dimensions=_DIMENSIONS, matrix_le_f32=_READY_MATRIX
        )

    async def close(self) -> None:
        """There is nothing to close."""


VARIANTS: Final[dict[str, Callable[[str], Any]]] = {"bare": Bare, "unmerged": Unmerged, "echo": Echo}


def _messages(request: chat_pb2.ChatRequest) -> list[dict[str, str]]:
    return [
        {"role": _ROLES[message.role], "content": "".join([part.text for part in message.content])}
        for message in request.messages
    ]


def _chat_body(request: chat_pb2.ChatRequest) -> bytes:
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request)}
    _write_options(request, body)
    return _ENCODER.encode(body)


def _stream_body(request: chat_pb2.ChatRequest) -> bytes:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _write_options(request, body)
    return _ENCODER.encode(body)


def _write_options(request: chat_pb2.ChatRequest, body: dict[str, Any]) -> None:
    generation = request.generation
    if generation.HasField("max_output_tokens"):
        body["max_completion_tokens"] = generation.max_output_tokens
    if generation.HasField("temperature"):
        body["temperature"] = generation.temperature


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[list[_Answer]]:
    """Yield the events that each read completes."""
    rest = b""
    while chunk := await content.readany():
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        events = list(_decoded(lines))
        if events:
            yield events


def _decoded(lines: list[bytes]) -> Iterator[_Answer]:
    for line in lines:
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield _ANSWER.decode(line[6:])


def _started(request: chat_pb2.ChatRequest, event: _Answer) -> chat_pb2.StreamChatResponse:
    reply = chat_pb2.StreamChatResponse()
    reply.started.id = event.id
    reply.started.model = request.model
    reply.started.route.upstream_model = event.model
    return reply


def _delta(text: str) -> chat_pb2.StreamChatResponse:
    reply = chat_pb2.StreamChatResponse()
    reply.delta.text = text
    return reply


def _finished(finish: str, usage: _Usage | None) -> chat_pb2.StreamChatResponse:
    reply = chat_pb2.StreamChatResponse()
    reply.finished.finish_reason = _FINISHES[finish]
    _write_usage(usage, reply.finished.usage)
    return reply


def _write_usage(usage: _Usage | None, into: Any) -> None:
    if usage is not None:
        into.input_tokens = usage.prompt_tokens
        into.output_tokens = usage.completion_tokens


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte: the encoding's own number
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


async def _serve(listen: str, upstream: str, variant: str) -> None:
    servicer = VARIANTS[variant](upstream)
    server = aio.server()
    add_ModelRouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(listen)
    await server.start()
    print("listening", port, flush=True)
    try:
        await server.wait_for_termination()
    finally:
        await servicer.close()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="The bare pipeline.")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--upstream", default="http://127.0.0.1:8000/v1", help="up to and with /v1")
    parser.add_argument("--variant", choices=VARIANTS, default="bare")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(args.listen, args.upstream, args.variant))


if __name__ == "__main__":
    main()
