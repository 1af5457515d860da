"""Whatever is sent, reading it gives a request or an INVALID_REQUEST with the fields named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelrouter.v1 import chat_pb2, embed_pb2
from router_server.core.errors import Reason, RouterError
from router_server.core.needs import estimate_prompt, needs_of
from router_server.core.types import ChatRequest
from router_server.rpc.convert.chat import read_chat
from router_server.rpc.convert.embed import read_embed
from tests.rpc.any_message import any_message

varied = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


def check(read: Callable[[Any], object], message: Any) -> None:
    refusal: RouterError | None = None
    try:
        request = read(message)
    except RouterError as error:
        refusal = error
    if refusal is not None:
        assert refusal.reason is Reason.INVALID_REQUEST
        assert refusal.violations
        assert all(violation.field and violation.description for violation in refusal.violations)
    elif isinstance(request, ChatRequest):
        assert request.model
        assert request.messages
        assert estimate_prompt(request) >= 0
        assert needs_of(request)


@varied
@given(any_message(chat_pb2.ChatRequest.DESCRIPTOR))
def test_any_chat_request(message: chat_pb2.ChatRequest) -> None:
    check(read_chat, message)


@varied
@given(any_message(embed_pb2.EmbedRequest.DESCRIPTOR))
def test_any_embed_request(message: embed_pb2.EmbedRequest) -> None:
    check(read_embed, message)


@given(st.binary(max_size=64))
def test_any_bytes_that_parse(data: bytes) -> None:
    try:
        message = chat_pb2.ChatRequest.FromString(data)
    except DecodeError:
        return
    check(read_chat, message)
