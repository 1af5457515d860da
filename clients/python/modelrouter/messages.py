"""The words of a conversation: short constructors for the contract's messages.

Everything here returns a plain message of the contract, so each can be mixed with messages made by hand.
Refuses to know which provider understands what.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from modelrouter.v1 import chat_pb2

Detail = Literal["low", "high"]
ToolMode = Literal["auto", "none", "required"]


class HasJsonSchema(Protocol):
    """A class that knows its own JSON Schema, a pydantic model for example."""

    def model_json_schema(self) -> dict[str, Any]:
        """Return the schema."""


Schema = Mapping[str, Any] | str | HasJsonSchema
"""JSON Schema: a mapping, JSON text, or a class with ``model_json_schema()``."""

_Number = TypeVar("_Number", chat_pb2.MediaDetail, chat_pb2.ToolChoice.Mode)
Content = str | chat_pb2.ContentPart

_DETAILS = {"low": chat_pb2.MEDIA_DETAIL_LOW, "high": chat_pb2.MEDIA_DETAIL_HIGH}
_MODES = {
    "auto": chat_pb2.ToolChoice.MODE_AUTO,
    "none": chat_pb2.ToolChoice.MODE_NONE,
    "required": chat_pb2.ToolChoice.MODE_REQUIRED,
}
# The first bytes of the image formats that providers take.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


def system(*content: Content) -> chat_pb2.Message:
    """Return an instruction that stands above the conversation."""
    return _message(chat_pb2.ROLE_SYSTEM, content)


def developer(*content: Content) -> chat_pb2.Message:
    """Return an instruction of the application, where a model tells it from the system's."""
    return _message(chat_pb2.ROLE_DEVELOPER, content)


def user(*content: Content) -> chat_pb2.Message:
    """Return a turn of the user: texts and images, in order."""
    return _message(chat_pb2.ROLE_USER, content)


def assistant(*content: Content) -> chat_pb2.Message:
    """Return a turn of the model. Prefer ``answer.message``, which also carries the provider's own state."""
    return _message(chat_pb2.ROLE_ASSISTANT, content)


def tool_result(tool_call_id: str, *content: Content, is_error: bool = False) -> chat_pb2.Message:
    """Return what a function returned for the call with this id; ``is_error``: it failed."""
    result = chat_pb2.ToolResult(tool_call_id=tool_call_id, content=_parts(content), is_error=is_error)
    return chat_pb2.Message(role=chat_pb2.ROLE_TOOL, content=[chat_pb2.ContentPart(tool_result=result)])


def image(
    source: str | PathLike[str] | bytes, *, mime_type: str = "", detail: Detail | None = None
) -> chat_pb2.ContentPart:
    """Return an image to send along, from a file's path or from its bytes.

    Raises:
        ValueError: the kind of image cannot be told; give ``mime_type``.
        OSError: the file cannot be read.
    """
    data, name = (source, "") if isinstance(source, bytes) else (Path(source).read_bytes(), Path(source).name)
    kind = mime_type or _sniffed(data) or mimetypes.guess_type(name)[0]
    if not kind:
        raise ValueError(f"cannot tell what kind of image {name or 'this'} is; give mime_type=")
    blob = chat_pb2.Blob(mime_type=kind, data=data, filename=name, detail=_detail(detail))
    return chat_pb2.ContentPart(inline_data=blob)


def image_url(url: str, *, mime_type: str = "", detail: Detail | None = None) -> chat_pb2.ContentPart:
    """Return an image that the provider fetches by itself."""
    file = chat_pb2.FileRef(uri=url, mime_type=mime_type, detail=_detail(detail))
    return chat_pb2.ContentPart(file=file)


def tool(
    name: str, description: str = "", parameters: Schema | None = None, *, strict: bool = False
) -> chat_pb2.Tool:
    """Return a function that the model may call; ``strict`` makes its arguments obey ``parameters``."""
    schema = "" if parameters is None else _schema(parameters)
    function = chat_pb2.FunctionTool(
        name=name, description=description, parameters_json_schema=schema, strict=strict
    )
    return chat_pb2.Tool(function=function)


def tool_choice(
    mode: ToolMode | None = None, *allowed: str, parallel: bool | None = None
) -> chat_pb2.ToolChoice:
    """Return how tools may be used: the mode, the only tools allowed, whether several calls at once."""
    choice = chat_pb2.ToolChoice(allowed_tool_names=allowed)
    if mode is not None:
        choice.mode = _known(mode, _MODES)
    if parallel is not None:
        choice.parallel = parallel
    return choice


def json_object() -> chat_pb2.ResponseFormat:
    """Return the wish for an answer that is some JSON object."""
    return chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat())


def json_schema(name: str, schema: Schema, *, strict: bool = True) -> chat_pb2.ResponseFormat:
    """Return the wish for an answer that is JSON and obeys ``schema``."""
    wanted = chat_pb2.JsonSchemaFormat(name=name, schema_json=_schema(schema), strict=strict)
    return chat_pb2.ResponseFormat(json_schema=wanted)


def regex(pattern: str) -> chat_pb2.ResponseFormat:
    """Return the wish for an answer that matches ``pattern``."""
    return chat_pb2.ResponseFormat(regex=pattern)


def grammar(text: str) -> chat_pb2.ResponseFormat:
    """Return the wish for an answer that is a sentence of a grammar, in the provider's own notation."""
    return chat_pb2.ResponseFormat(grammar=text)


def choice(*choices: str) -> chat_pb2.ResponseFormat:
    """Return the wish for an answer that is exactly one of ``choices``."""
    return chat_pb2.ResponseFormat(choice=chat_pb2.ChoiceFormat(choices=choices))


def _message(role: chat_pb2.Role, content: tuple[Content, ...]) -> chat_pb2.Message:
    return chat_pb2.Message(role=role, content=_parts(content))


def _parts(content: tuple[Content, ...]) -> list[chat_pb2.ContentPart]:
    return [chat_pb2.ContentPart(text=part) if isinstance(part, str) else part for part in content]


def _schema(schema: Schema) -> str:
    if isinstance(schema, str):
        return schema
    return json.dumps(schema if isinstance(schema, Mapping) else schema.model_json_schema())


def _detail(detail: Detail | None) -> chat_pb2.MediaDetail:
    return chat_pb2.MEDIA_DETAIL_UNSPECIFIED if detail is None else _known(detail, _DETAILS)


def _known(word: str, words: Mapping[str, _Number]) -> _Number:
    if word not in words:
        raise ValueError(f"{word!r} is none of {', '.join(words)}")
    return words[word]


def _sniffed(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")
