"""The bare pipeline answers what the router would, and is still the one that all figures are stated in."""

from __future__ import annotations

import base64
import hashlib
import json
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from bench import bare
from modelrouter.v1 import chat_pb2, embed_pb2, service_pb2_grpc
from tests.upstream import Steps, Upstream, json_reply, reply

FROZEN = "06d1abb0d50c55f9196d6480d6fa7529fc77287c9ce715287925081bfb05daff"
"""Figures before and after a change of the measure cannot be compared: leave it, and change the router."""

VECTORS = (array("f", [0.5, -1.0]), array("f", [0.25, 2.0]))
WORDS = ["Par", "is", "."]


def test_the_measure_does_not_change() -> None:
    assert bare.__file__ is not None
    assert hashlib.sha256(Path(bare.__file__).read_bytes()).hexdigest() == FROZEN


@asynccontextmanager
async def served(variant: str, upstream: str) -> AsyncIterator[Any]:
    servicer = bare.VARIANTS[variant](upstream)
    server = aio.server()
    service_pb2_grpc.add_ModelRouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service_pb2_grpc.ModelRouterServiceStub(channel)
    await server.stop(None)
    await servicer.close()


def chat() -> chat_pb2.ChatRequest:
    part = chat_pb2.ContentPart(text="Capital of France?")
    return chat_pb2.ChatRequest(
        model="chat", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part])]
    )


def chunk(content: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "model": "m",
        "choices": [{"delta": {"content": content}, "finish_reason": finish}],
    } | more


def at_once(events: list[dict[str, Any]]) -> Steps:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return reply(body.encode())


async def test_chat() -> None:
    async with Upstream() as upstream, served("bare", upstream.base_url) as stub:
        message = {"role": "assistant", "content": "Paris."}
        usage = {"prompt_tokens": 4, "completion_tokens": 2}
        upstream.always(
            json_reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
        )
        answer = await stub.Chat(chat())
        assert answer.message.content[0].text == "Paris."
        assert answer.finish_reason == chat_pb2.FINISH_REASON_STOP
        assert answer.usage.output_tokens == 2
        assert upstream.requests[0].json["messages"] == [{"role": "user", "content": "Capital of France?"}]


@pytest.mark.parametrize(("variant", "texts"), [("bare", ["Paris."]), ("unmerged", WORDS)])
async def test_a_stream_that_arrives_at_once(variant: str, texts: list[str]) -> None:
    chunks = [chunk(word) for word in WORDS]
    last = chunk(None, "length", usage={"prompt_tokens": 4, "completion_tokens": 3})
    async with Upstream() as upstream, served(variant, upstream.base_url) as stub:
        upstream.always(at_once([*chunks, last]))
        events = [event async for event in stub.StreamChat(chat())]
        assert events[0].started.model == "chat"
        assert [event.delta.text for event in events[1:-1]] == texts
        assert events[-1].finished.usage.output_tokens == 3
        assert events[-1].finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH


async def test_vectors_as_bytes_and_as_floats() -> None:
    data = [{"embedding": base64.b64encode(vector.tobytes()).decode()} for vector in VECTORS]
    async with Upstream() as upstream, served("bare", upstream.base_url) as stub:
        upstream.always(json_reply({"data": data}))
        request = embed_pb2.EmbedRequest(inputs=[embed_pb2.EmbedInput(text=text) for text in "ab"])
        floats = await stub.Embed(request)
        request.encoding = embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES
        matrix = await stub.Embed(request)
        assert [list(row.values) for row in floats.embeddings] == [list(vector) for vector in VECTORS]
        assert matrix.matrix_le_f32 == b"".join(vector.tobytes() for vector in VECTORS)
        assert matrix.dimensions == 2


async def test_the_echo_asks_nobody() -> None:
    async with served("echo", "http://127.0.0.1:9") as stub:
        answer = await stub.Chat(chat())
        assert answer.message.content[0].text == "Capital of France?"
