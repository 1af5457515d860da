"""The conversation of a chat request: turns, their parts, and that every tool result answers a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from modelrouter.v1 import chat_pb2 as pb
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
from router_server.rpc.convert.fields import Fields, quote

_ROLES: Mapping[int, Role] = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_DEVELOPER: Role.DEVELOPER,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_DETAILS: Mapping[int, MediaDetail] = {
    pb.MEDIA_DETAIL_LOW: MediaDetail.LOW,
    pb.MEDIA_DETAIL_HIGH: MediaDetail.HIGH,
}
_MEDIA = ("text", "inline_data", "file")
_PARTS: Mapping[Role, tuple[str, ...]] = {
    Role.SYSTEM: ("text",),
    Role.DEVELOPER: ("text",),
    Role.USER: _MEDIA,
    Role.ASSISTANT: (*_MEDIA, "tool_call", "reasoning", "refusal"),
    Role.TOOL: ("tool_result",),
}
"""What each role may say."""
_PLACES: Mapping[Role, str] = {role: f"a {pb.Role.Name(number)} message" for number, role in _ROLES.items()}

_SPEAKERS: Mapping[int, Role] = {number: role for number, role in _ROLES.items() if role is not Role.TOOL}
"""Who may say a text."""

_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:\s*;\s*[^;\s]+)*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):.")
_MOST_TURNS_AND_PARTS = 16_384
"""A million of them fit a message of 16 MiB, and reading them would keep every other call waiting for 7 s."""

_LONGEST_URI = 8_192
_LONGEST_NAME = 128
_LONGEST_MIME = 256
_LONGEST_FILENAME = 512


def read_messages(messages: Sequence[pb.Message], fields: Fields) -> tuple[Message, ...]:
    """Return the conversation, oldest turn first."""
    if not messages:
        fields.wrong("messages", "add at least one message")
        return ()
    history = _History(fields, _MOST_TURNS_AND_PARTS - len(messages))
    try:
        return history.turns(messages)
    except _TooManyError:
        fields.wrong("messages", f"have more than {_MOST_TURNS_AND_PARTS} turns and parts in all; join some")
        return ()


class _TooManyError(Exception):
    """There are more turns and parts than one request may have."""


class _History:
    """The turns read so far, and which tool calls among them still wait for their result.

    Args:
        fields: told of what is wrong.
        parts_left: how many parts there may be.
    """

    def __init__(self, fields: Fields, parts_left: int) -> None:
        self._fields = fields
        self._parts_left = parts_left
        self._calls: dict[str, str] = {}
        self._answered: dict[str, str] = {}

    def turns(self, messages: Sequence[pb.Message]) -> tuple[Message, ...]:
        self._count(0)
        return tuple(
            [self._text(turn) or self._turn(f"messages[{i}]", turn) for i, turn in enumerate(messages)]
        )

    def _count(self, parts: int) -> None:
        self._parts_left -= parts
        if self._parts_left < 0:
            raise _TooManyError

    def _text(self, message: pb.Message) -> Message | None:
        """Return a turn that is one text, as nearly all are, or None: then it needs a closer look.

        Each look at a field makes an object: one text is read with 12,000 instructions here, 39,000 there.
        """
        content = message.content
        if len(content) != 1:
            return None
        part, role, name = content[0], _SPEAKERS.get(message.role), message.name
        text = part.text
        if role is None or not text or len(name) > _LONGEST_NAME:
            return None
        self._count(1)
        return Message(role, (Text(text, part.opaque_state),), name)

    def _turn(self, field: str, message: pb.Message) -> Message:
        role = self._fields.choice(f"{field}.role", message.role, _ROLES, pb.Role)
        if message.role == pb.ROLE_UNSPECIFIED:
            self._fields.wrong(f"{field}.role", "say who speaks: ROLE_USER, for example")
        if not message.content:
            self._fields.wrong(f"{field}.content", "add at least one part, a text for example")
        self._fields.text(f"{field}.name", message.name, most=_LONGEST_NAME)
        if role is None:
            return Message(Role.USER, self._parts(field, message.content, tuple(_READERS), ""), message.name)
        parts = self._parts(field, message.content, _PARTS[role], _PLACES[role])
        return Message(role, parts, message.name)

    def _parts(
        self, field: str, parts: Sequence[pb.ContentPart], allowed: tuple[str, ...], place: str
    ) -> tuple[Part, ...]:
        self._count(len(parts))
        read = (
            self._part(f"{field}.content[{index}]", part, allowed, place) for index, part in enumerate(parts)
        )
        return tuple(part for part in read if part is not None)

    def _part(self, field: str, part: pb.ContentPart, allowed: tuple[str, ...], place: str) -> Part | None:
        kind = part.WhichOneof("part")
        if kind is None:
            self._fields.wrong(field, f"set one of {', '.join(allowed)}; this server knows no other part")
            return None
        if kind not in allowed:
            self._fields.wrong(f"{field}.{kind}", f"{place} takes {' or '.join(allowed)}, not {kind}")
            return None
        if kind == "text":  # first, since nearly all are
            return Text(part.text, part.opaque_state)
        return _READERS[kind](self, f"{field}.{kind}", part)

    def blob(self, field: str, part: pb.ContentPart) -> Blob:
        blob = part.inline_data
        if not blob.data:
            self._fields.wrong(f"{field}.data", "must not be empty")
        self._mime(f"{field}.mime_type", blob.mime_type)
        self._fields.text(f"{field}.filename", blob.filename, most=_LONGEST_FILENAME)
        return Blob(
            blob.mime_type, blob.data, blob.filename, self._detail(field, blob.detail), part.opaque_state
        )

    def file(self, field: str, part: pb.ContentPart) -> FileRef:
        file = part.file
        if file.mime_type:
            self._mime(f"{field}.mime_type", file.mime_type)
        self._uri(f"{field}.uri", file.uri)
        return FileRef(file.mime_type, file.uri, self._detail(field, file.detail), part.opaque_state)

    def tool_call(self, field: str, part: pb.ContentPart) -> ToolCall:
        call = part.tool_call
        self._fields.text(f"{field}.name", call.name, most=_LONGEST_NAME, required=True)
        if not call.id:
            self._fields.wrong(f"{field}.id", "must not be empty: the result of this call refers to it")
        elif call.id in self._calls:
            self._fields.wrong(
                f"{field}.id", f"{quote(call.id)} is already the id of {self._calls[call.id]}; ids are unique"
            )
        else:
            self._calls[call.id] = field
        # A call without arguments is "" to some models and {} to others; upstreams take the latter.
        arguments = call.arguments_json or "{}"
        self._fields.json_object(f"{field}.arguments_json", arguments)
        return ToolCall(call.id, call.name, arguments, part.opaque_state)

    def tool_result(self, field: str, part: pb.ContentPart) -> ToolResult:
        result = part.tool_result
        self._answer(f"{field}.tool_call_id", result.tool_call_id)
        content = self._parts(field, result.content, _MEDIA, "a tool_result")
        return ToolResult(result.tool_call_id, content, result.is_error, part.opaque_state)

    def _answer(self, field: str, call_id: str) -> None:
        if not call_id:
            self._fields.wrong(field, "name the id of the tool_call that this result answers")
        elif call_id not in self._calls:
            self._fields.wrong(
                field,
                f"no earlier message has a tool_call with the id {quote(call_id)}; "
                "send the assistant's message with the call before its result",
            )
        elif call_id in self._answered:
            self._fields.wrong(
                field,
                f"{quote(call_id)} is already answered at {self._answered[call_id]}; answer a call once",
            )
        else:
            self._answered[call_id] = field

    def _mime(self, field: str, mime_type: str) -> None:
        if len(mime_type) > _LONGEST_MIME or not _MIME.fullmatch(mime_type):
            self._fields.wrong(field, f"{quote(mime_type)} is not a MIME type; write one such as image/png")

    def _uri(self, field: str, uri: str) -> None:
        scheme = _SCHEME.match(uri)
        if scheme is None:
            self._fields.wrong(field, f"{quote(uri)} is not an absolute URI; write one such as https://…")
        elif scheme[1].lower() in ("file", "data"):
            self._fields.wrong(
                field,
                f"{scheme[1].lower()}: URIs are refused; send the bytes as inline_data",
            )
        self._fields.text(field, uri, most=_LONGEST_URI)

    def _detail(self, field: str, detail: int) -> MediaDetail | None:
        return self._fields.choice(f"{field}.detail", detail, _DETAILS, pb.MediaDetail)


_READERS: Mapping[str, Callable[[_History, str, pb.ContentPart], Part]] = {
    "text": lambda _, _field, part: Text(part.text, part.opaque_state),
    "inline_data": _History.blob,
    "file": _History.file,
    "tool_call": _History.tool_call,
    "tool_result": _History.tool_result,
    "reasoning": lambda _, _field, part: Reasoning(part.reasoning.text, part.opaque_state),
    "refusal": lambda _, _field, part: Refusal(part.refusal, part.opaque_state),
}
