"""What is said in a conversation, by whom, in which parts."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from router_server.core.record import Record


class Role(StrEnum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MediaDetail(StrEnum):
    """How closely an image is read, where the provider distinguishes."""

    LOW = "low"
    HIGH = "high"


class Text(Record, frozen=True):
    """A piece of text."""

    text: str
    opaque_state: bytes = b""


class Blob(Record, frozen=True):
    """Inline bytes, an image for example."""

    unsaid: ClassVar[frozenset[str]] = frozenset({"data"})

    mime_type: str
    data: bytes
    filename: str = ""
    detail: MediaDetail | None = None
    opaque_state: bytes = b""


class FileRef(Record, frozen=True):
    """Content that the upstream fetches by itself from ``uri``."""

    mime_type: str
    uri: str
    detail: MediaDetail | None = None
    opaque_state: bytes = b""


class ToolCall(Record, frozen=True):
    """A function that the model wants called; ``arguments_json`` is the model's own text."""

    id: str
    name: str
    arguments_json: str
    opaque_state: bytes = b""


class ToolResult(Record, frozen=True):
    """What the function returned, answering the call with the same id."""

    tool_call_id: str
    content: tuple[Part, ...]
    is_error: bool = False
    opaque_state: bytes = b""


class Reasoning(Record, frozen=True):
    """The model's thinking, where the provider shows it."""

    text: str
    opaque_state: bytes = b""


class Refusal(Record, frozen=True):
    """The model's own words for declining."""

    text: str
    opaque_state: bytes = b""


Part = Text | Blob | FileRef | ToolCall | ToolResult | Reasoning | Refusal


class Message(Record, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...]
    name: str = ""
