"""Chat requests as JSON, and what reading them finds."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from modelrouter.v1 import chat_pb2
from router_server.core.errors import RouterError
from router_server.core.types import ChatRequest
from router_server.rpc.convert.chat import read_chat

USER: dict[str, Any] = {"role": "ROLE_USER", "content": [{"text": "hi"}]}


def read(**fields: Any) -> ChatRequest:
    """Read a request given as JSON, with a model and a message unless they are given."""
    return read_chat(
        json_format.ParseDict({"model": "chat", "messages": [USER], **fields}, chat_pb2.ChatRequest())
    )


def bad_fields(**fields: Any) -> dict[str, str]:
    with pytest.raises(RouterError) as caught:
        read(**fields)
    return {violation.field: violation.description for violation in caught.value.violations}


def turn(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": f"ROLE_{role}", "content": list(parts)}


def call(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"toolCall": {"id": call_id, "name": "weather", "argumentsJson": arguments}}


def result(call_id: str) -> dict[str, Any]:
    return {"toolResult": {"toolCallId": call_id, "content": [{"text": "sunny"}]}}
