"""Conversations in one line, and the Gemini requests that they become."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    ChatRequest,
    Generation,
    Message,
    Part,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_server.providers._gemini_request import chat_body

OLD, NEW = "gemini-2.5-flash", "gemini-3.1-pro-preview"


def says(role: Role, *content: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in content))


def user(*content: Part | str) -> Message:
    return says(Role.USER, *content)


def model(*content: Part | str) -> Message:
    return says(Role.ASSISTANT, *content)


def calls(name: str, identity: str, arguments: str = "{}", signature: str = "") -> ToolCall:
    return ToolCall(identity, name, arguments, signed(signature) if signature else b"")


def returns(identity: str, *content: Part | str, is_error: bool = False) -> Message:
    parts = tuple(Text(part) if isinstance(part, str) else part for part in content)
    return Message(Role.TOOL, (ToolResult(identity, parts, is_error),))


def signed(signature: str, kind: str = "gemini") -> bytes:
    return seal(kind, NEW, signature.encode())


def body_of(
    *messages: Message, name: str = OLD, options: Mapping[str, Any] | None = None, **rest: Any
) -> Any:
    request = ChatRequest("route", messages or (user("Hi"),), **rest)
    return json.loads(chat_body(UpstreamChat(name, request, options or {})))


def contents(*messages: Message, name: str = OLD) -> Any:
    return body_of(*messages, name=name)["contents"]


def config(name: str = OLD, **generation: Any) -> Any:
    return body_of(name=name, generation=Generation(**generation)).get("generationConfig")


def refusal_of(*messages: Message, **rest: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        body_of(*messages, **rest)
    assert caught.value.outcome is Outcome.INVALID_REQUEST
    return caught.value.reason
