"""A conversation becomes the ``messages`` of OpenAI's chat completions. Pure.

Opaque state is skipped: this wire has none of its own, and that of other kinds is not ours to read. Refuses
to know the rest of a request.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    Blob,
    FileRef,
    MediaDetail,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

_AUDIO_FORMATS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


_PLAIN: Final = frozenset({Role.SYSTEM, Role.USER, Role.ASSISTANT})
"""Whose texts every server takes as they are."""


def messages_of(call: UpstreamChat, *, developer_role: bool, reasoning_history: bool) -> list[dict[str, Any]]:
    """Return the messages, with the text to be continued as the last of them.

    Raises:
        UpstreamError: INVALID_REQUEST, ``unsupported_content``: something has no place on this wire.
    """
    messages: list[dict[str, Any]] = []
    for message in call.messages:
        content = message.content
        if len(content) == 1 and type(content[0]) is Text and message.role in _PLAIN and not message.name:
            # Nearly all are such: 2,000 instructions, and 9,000 for the closer look.
            messages.append({"role": message.role, "content": content[0].text})
        else:
            messages.extend(
                _message(message, developer_role=developer_role, reasoning_history=reasoning_history)
            )
    if call.continuation is not None:
        messages.append({"role": Role.ASSISTANT, "content": call.continuation})
    return messages


def _message(message: Message, *, developer_role: bool, reasoning_history: bool) -> Iterable[dict[str, Any]]:
    """One turn is several messages where it holds tool results: each is a message of its own."""
    rest = tuple(part for part in message.content if not isinstance(part, ToolResult))
    results = [_tool_result(part) for part in message.content if isinstance(part, ToolResult)]
    yield from results
    if message.role is Role.TOOL:
        if rest or not results:
            raise _unsupported()
        return
    if results and not rest:
        return
    role = message.role
    if role is Role.DEVELOPER and not developer_role:
        role = Role.SYSTEM
    wire: dict[str, Any] = {"role": role}
    if message.name:
        wire["name"] = message.name
    if role is Role.ASSISTANT:
        wire.update(_assistant(rest, reasoning_history=reasoning_history))
    else:
        wire["content"] = _content(rest)
    yield wire


def _assistant(parts: tuple[Part, ...], *, reasoning_history: bool) -> dict[str, Any]:
    shown = tuple(part for part in parts if not isinstance(part, (ToolCall, Reasoning, Refusal)))
    calls = [_tool_call(part) for part in parts if isinstance(part, ToolCall)]
    refusal = "".join(part.text for part in parts if isinstance(part, Refusal))
    fields: dict[str, Any] = {"content": _content(shown)}
    if not shown and (calls or refusal):
        fields["content"] = None
    if calls:
        fields["tool_calls"] = calls
    if refusal:
        fields["refusal"] = refusal
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    if reasoning and reasoning_history:
        fields["reasoning"] = reasoning
    return fields


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json or "{}"},
    }


def _tool_result(result: ToolResult) -> dict[str, Any]:
    """``is_error`` has no place on this wire: the content has to say it."""
    if not all(isinstance(part, Text) for part in result.content):
        raise _unsupported()
    return {"role": Role.TOOL, "tool_call_id": result.tool_call_id, "content": _content(result.content)}


def _content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """Text alone is sent as a string, which every server knows; anything else as a list of parts."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Blob):
        return _blob(part)
    if isinstance(part, FileRef) and _is_image(part.mime_type or "image/*"):
        return _image(part.uri, part.detail)
    raise _unsupported()


def _blob(blob: Blob) -> dict[str, Any]:
    mime_type = blob.mime_type.lower()
    encoded = base64.b64encode(blob.data).decode()
    if _is_image(mime_type):
        return _image(f"data:{mime_type};base64,{encoded}", blob.detail)
    if mime_type in _AUDIO_FORMATS:
        return {
            "type": "input_audio",
            "input_audio": {"data": encoded, "format": _AUDIO_FORMATS[mime_type]},
        }
    if not mime_type or mime_type.startswith(("audio/", "video/")):
        raise _unsupported()
    file = {
        "filename": blob.filename or _filename(mime_type),
        "file_data": f"data:{mime_type};base64,{encoded}",
    }
    return {"type": "file", "file": file}


def _filename(mime_type: str) -> str:
    """OpenAI wants a name, and reads the kind of a document from its end."""
    ending = mime_type.partition(";")[0].rpartition("/")[2]
    return f"document.{'txt' if ending == 'plain' else ending}"


def _image(url: str, detail: MediaDetail | None) -> dict[str, Any]:
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}


def _is_image(mime_type: str) -> bool:
    return mime_type.lower().startswith("image/")


def _unsupported() -> UpstreamError:
    return UpstreamError(Outcome.INVALID_REQUEST, "unsupported_content")
