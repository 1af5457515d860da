"""Messages as the GenAI conventions write them into a span, for those who switched recording on.

Media are described, not copied: an image would make a span of megabytes. Refuses to decide whether
contents may be recorded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from router_server.core.types import (
    Blob,
    FileRef,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)


def messages_json(messages: Sequence[Message]) -> str:
    """Return ``messages`` as JSON that obeys the schema of ``gen_ai.input.messages``."""
    return json.dumps([_message(message) for message in messages], ensure_ascii=False)


def _message(message: Message) -> dict[str, Any]:
    name = {"name": message.name} if message.name else {}
    return {"role": message.role.value, "parts": [_part(part) for part in message.content], **name}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Reasoning() | Refusal():
            return {"type": type(part).__name__.lower(), "content": part.text}
        case ToolCall():
            arguments = _arguments(part.arguments_json)
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": arguments}
        case ToolResult():
            response = [_part(inner) for inner in part.content]
            return {"type": "tool_call_response", "id": part.tool_call_id, "response": response}
        case Blob():
            return {"type": "blob", **_media(part.mime_type), "content": "", "bytes": len(part.data)}
        case FileRef():
            return {"type": "uri", **_media(part.mime_type), "uri": part.uri}


def _arguments(text: str) -> Any:
    """Return parsed arguments; a model may have written what is not JSON, which is kept as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _media(mime_type: str) -> dict[str, str]:
    family = mime_type.partition("/")[0]
    modality = family if family in {"image", "audio", "video"} else "document"
    return {"mime_type": mime_type, "modality": modality}
