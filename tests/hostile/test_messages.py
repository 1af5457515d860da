"""Messages that no client library would send: a clear status for them, and no one else is kept waiting."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc import aio

from modelrouter.v1 import chat_pb2 as pb
from modelrouter.v1 import common_pb2, embed_pb2
from tests.e2e.process import ServerProcess
from tests.e2e.serving import chat, failure_of
from tests.hostile.callers import LIMIT, code_of, others_are_served, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MILLION = 1_000_000
CHAT = "/modelrouter.v1.ModelRouterService/Chat"
EMBED = "/modelrouter.v1.ModelRouterService/Embed"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with stage(tmp_path_factory.mktemp("s")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def channel(server: ServerProcess) -> AsyncIterator[aio.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    async with aio.insecure_channel(server.target, options=options) as channel:
        yield channel


def send(channel: aio.Channel, method: str, data: bytes) -> aio.UnaryUnaryCall[bytes, bytes]:
    return channel.unary_unary(method, None, None)(data, timeout=30)


async def test_random_bytes(server: ServerProcess, channel: aio.Channel) -> None:
    draws = random.Random(1)  # noqa: S311 - to be repeated, not to be secret
    codes = set()
    async with others_are_served(server):
        for _ in range(300):
            codes.add(await code_of(send(channel, CHAT, draws.randbytes(draws.randrange(1, 200)))))
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


async def test_a_byte_more_than_allowed(server: ServerProcess, channel: aio.Channel) -> None:
    async with others_are_served(server):
        code = await code_of(send(channel, CHAT, bytes(LIMIT + 1)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_as_much_as_allowed(server: ServerProcess, channel: aio.Channel) -> None:
    data = chat(text="a" * (LIMIT - 100)).SerializeToString()
    async with others_are_served(server):
        assert await code_of(send(channel, CHAT, data)) is grpc.StatusCode.OK


def repeated(message: bytes, field: int, times: int = MILLION) -> bytes:
    """Return a field of type message, so many times."""
    return _field(field, message) * times


def _turn(parts: bytes, role: pb.Role) -> bytes:
    turn = pb.Message.FromString(parts)
    turn.role = role
    return pb.ChatRequest(messages=[turn]).SerializeToString()


def _parts(part: pb.ContentPart) -> bytes:
    return _turn(repeated(part.SerializeToString(), 2), pb.ROLE_USER)


def _calls() -> bytes:
    calls = (pb.ContentPart(tool_call=pb.ToolCall(id=f"{n:x}", name="f")) for n in range(MILLION // 2))
    return _turn(b"".join(repeated(call.SerializeToString(), 2, 1) for call in calls), pb.ROLE_ASSISTANT)


def _chat(**fields: Any) -> bytes:
    return pb.ChatRequest(**fields).SerializeToString()


_TEXT = pb.ContentPart(text="a")
_TURN = pb.Message(role=pb.ROLE_USER, content=[_TEXT]).SerializeToString()
_TOOL = pb.Tool(function=pb.FunctionTool(name="f")).SerializeToString()

TINY: dict[str, Callable[[], bytes]] = {
    "parts": lambda: _parts(_TEXT),
    "empty parts": lambda: _parts(pb.ContentPart()),
    "tool results": lambda: _turn(
        repeated(pb.ContentPart(tool_result=pb.ToolResult(tool_call_id="a")).SerializeToString(), 2),
        pb.ROLE_TOOL,
    ),
    "calls": _calls,
    "turns": lambda: repeated(_TURN, 2),
    "empty turns": lambda: repeated(b"", 2),
    "tools": lambda: repeated(_TOOL, 4),
    "stops": lambda: _chat(generation=pb.GenerationConfig(stop_sequences=["a"] * MILLION)),
    "labels": lambda: _chat(labels={f"{n:x}": "" for n in range(MILLION // 4)}),
    "options": lambda: _chat(provider_options_json={f"{n:x}": "{}" for n in range(MILLION // 4)}),
    "names": lambda: _chat(tool_choice=pb.ToolChoice(allowed_tool_names=["a"] * MILLION)),
    "targets": lambda: _chat(routing=common_pb2.RoutingOptions(allowed_targets=["a"] * MILLION)),
}


@pytest.mark.parametrize("case", TINY)
async def test_a_million_tiny_things(server: ServerProcess, channel: aio.Channel, case: str) -> None:
    data = chat().SerializeToString() + TINY[case]()
    assert len(data) <= LIMIT
    async with others_are_served(server):
        assert await code_of(send(channel, CHAT, data)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_json_of_a_million_tiny_things(server: ServerProcess, channel: aio.Channel) -> None:
    options = {"static": '{"a": [' + "{}," * 5 * MILLION + "1]}"}
    data = chat().SerializeToString() + _chat(provider_options_json=options)
    async with others_are_served(server):
        assert await code_of(send(channel, CHAT, data)) is grpc.StatusCode.OK


async def test_a_million_inputs(server: ServerProcess, channel: aio.Channel) -> None:
    inputs = [embed_pb2.EmbedInput(text="a")] * MILLION
    data = embed_pb2.EmbedRequest(model="chat", inputs=inputs).SerializeToString()
    async with others_are_served(server):
        assert await code_of(send(channel, EMBED, data)) is grpc.StatusCode.INVALID_ARGUMENT


DEEP = "[" * 100_000 + "]" * 100_000

ABSURD: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"generation": {"temperature": "NaN"}}, "generation.temperature"),
    "infinity": ({"generation": {"temperature": "Infinity"}}, "generation.temperature"),
    "less than no token": ({"generation": {"maxOutputTokens": -1}}, "generation.max_output_tokens"),
    "least of all tokens": ({"generation": {"maxOutputTokens": -(2**31)}}, "generation.max_output_tokens"),
    "no top_p": ({"generation": {"topP": "NaN"}}, "generation.top_p"),
    "negative logprobs": ({"generation": {"topLogprobs": -(2**31)}}, "generation.top_logprobs"),
    "a past timeout": ({"routing": {"firstTokenTimeout": "-1s"}}, "routing.first_token_timeout"),
    "eternity": ({"routing": {"firstTokenTimeout": "315576000000s"}}, "routing.first_token_timeout"),
    "deep options": ({"providerOptionsJson": {"x": DEEP}}, 'provider_options_json["x"]'),
    "a deep schema": (
        {"responseFormat": {"jsonSchema": {"schemaJson": '{"a": ' + DEEP + "}"}}},
        "response_format.json_schema.schema_json",
    ),
}


@pytest.mark.parametrize("case", ABSURD)
async def test_absurd_values_are_named(server: ServerProcess, case: str) -> None:
    fields, named = ABSURD[case]
    async with others_are_served(server):
        with pytest.raises(aio.AioRpcError) as caught:
            await server.stub.Chat(chat(**fields))
    failure = failure_of(caught.value)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    [violation] = failure.detail(error_details_pb2.BadRequest).field_violations
    assert violation.field == named


@pytest.mark.parametrize("priority", [-(2**31), 2**31 - 1])
async def test_the_ends_of_numbers_are_taken(server: ServerProcess, priority: int) -> None:
    asked = chat(generation={"maxOutputTokens": 2**31 - 1}, routing={"priority": priority})
    answer = await server.stub.Chat(asked)
    assert answer.message.content[0].text == "served"


async def test_text_that_is_no_utf_8(server: ServerProcess, channel: aio.Channel) -> None:
    data = chat(text="\u00e9").SerializeToString().replace("\u00e9".encode(), b"\xff\xfe")
    async with others_are_served(server):
        assert await code_of(send(channel, CHAT, data)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_tool_result_nested_in_itself_a_thousand_times(
    server: ServerProcess, channel: aio.Channel
) -> None:
    part = b""
    for _ in range(1_000):
        part = _field(5, _field(2, part))
    data = chat().SerializeToString() + _field(2, _field(2, part))
    async with others_are_served(server):
        assert await code_of(send(channel, CHAT, data)) is grpc.StatusCode.INVALID_ARGUMENT


def _field(number: int, message: bytes) -> bytes:
    length, size = b"", len(message)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + message
