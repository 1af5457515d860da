"""From a call's arguments to a request of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from modelrouter.options import CHAT_FIELDS, EMBED_FIELDS, fill
from modelrouter.v1 import chat_pb2, embed_pb2

Messages = str | chat_pb2.Message | Iterable[chat_pb2.Message] | chat_pb2.ChatRequest
"""A prompt; one turn or several; or a whole request, whose fields the options then override."""
Inputs = str | Iterable[str] | embed_pb2.EmbedRequest
"""One text or several; or a whole request, whose fields the options then override."""

DEFAULT_CHAT_ROUTE: Final = "chat"
DEFAULT_EMBED_ROUTE: Final = "embed"


def chat_request(messages: Messages, model: str | None, options: Mapping[str, Any]) -> chat_pb2.ChatRequest:
    """Return the request of a chat call.

    Raises:
        TypeError: an option or a message is of the wrong kind.
        ValueError: an option's value does not exist.
    """
    request = chat_pb2.ChatRequest()
    if isinstance(messages, chat_pb2.ChatRequest):
        request.CopyFrom(messages)
    else:
        request.messages.extend(_turns(messages))
    request.model = model or request.model or DEFAULT_CHAT_ROUTE
    fill(request, options, CHAT_FIELDS)
    return request


def embed_request(inputs: Inputs, model: str | None, options: Mapping[str, Any]) -> embed_pb2.EmbedRequest:
    """Return the request of an embedding call; it asks for the vectors as bytes.

    Raises:
        TypeError: an option or an input is of the wrong kind.
        ValueError: an option's value does not exist.
    """
    request = embed_pb2.EmbedRequest()
    if isinstance(inputs, embed_pb2.EmbedRequest):
        request.CopyFrom(inputs)
    else:
        texts = [inputs] if isinstance(inputs, str) else inputs
        request.inputs.extend(embed_pb2.EmbedInput(text=text) for text in texts)
    request.model = model or request.model or DEFAULT_EMBED_ROUTE
    request.encoding = embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES
    fill(request, options, EMBED_FIELDS)
    return request


def _turns(messages: str | chat_pb2.Message | Iterable[chat_pb2.Message]) -> list[chat_pb2.Message]:
    if isinstance(messages, str):
        part = chat_pb2.ContentPart(text=messages)
        return [chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part])]
    if isinstance(messages, chat_pb2.Message):
        return [messages]
    turns = list(messages)
    for at, turn in enumerate(turns):
        if not isinstance(turn, chat_pb2.Message):
            raise TypeError(
                f"messages[{at}] is a {type(turn).__name__}; make each turn with "
                "user(), system(), assistant() or tool_result(), or take answer.message"
            )
    return turns
