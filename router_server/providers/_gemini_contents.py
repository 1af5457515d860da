"""A conversation becomes Gemini's ``contents`` and ``systemInstruction``.

System and developer messages, wherever they stand, make up the system instruction, in order. Neighbours of
one role become one content, since a function's responses must come together, right after its calls.

Thought signatures go back on the very part that they came with, if this kind sealed them. Where a model
insists on them and the current turn has a function call without, because another model made it, the
documented placeholder excuses it: on the first call of each step, for that is what the API checks.
Reasoning goes back only with its signature; unsigned thoughts mean nothing to the model, and another
provider's are none of its business.

What has no place on this wire is left out: a speaker's name, a file's name, how closely to read an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import unseal
from router_server.core.types import (
    Blob,
    FileRef,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_server.providers._gemini_models import has_levels, insists_on_signatures

KIND_NAME: Final = "gemini"
"""Who seals the signatures; also the name of the kind."""

_SKIP_VALIDATION: Final = "skip_thought_signature_validator"
"""Google's placeholder for function calls that the model did not make itself (Thought signatures, FAQ)."""

_INSTRUCTING: Final = frozenset({Role.SYSTEM, Role.DEVELOPER})

_ARGUMENTS: Final = msgspec.json.Decoder(dict[str, Any])

WirePart = dict[str, Any]
WireContent = dict[str, Any]


def system_instruction(messages: Iterable[Message]) -> WireContent | None:
    """Return what the system and developer messages say, None where nothing.

    Raises:
        UpstreamError: INVALID_REQUEST where one holds anything but text, which Gemini does not take.
    """
    parts = [
        _instruction(part) for message in messages if message.role in _INSTRUCTING for part in message.content
    ]
    return {"parts": parts} if parts else None


def contents_of(messages: Iterable[Message], model: str) -> list[WireContent]:
    """Return the turns of user and model.

    Raises:
        UpstreamError: INVALID_REQUEST for a tool result whose call is not in the conversation, arguments
            that are no JSON object, or opaque state that was tampered with.
    """
    conversation = _Conversation(model)
    for message in messages:
        if message.role not in _INSTRUCTING:
            conversation.add(message)
    if insists_on_signatures(model):
        _excuse_missing_signatures(conversation.contents)
    return conversation.contents


def _instruction(part: Part) -> WirePart:
    if not isinstance(part, Text):
        raise UpstreamError(Outcome.INVALID_REQUEST, "system_message_not_text")
    return {"text": part.text}


class _Conversation:
    """The turns so far, and the names of the functions that were called in them."""

    def __init__(self, model: str) -> None:
        self.contents: list[WireContent] = []
        self._function_names: dict[str, str] = {}
        self._responses_take_media = has_levels(model)

    def add(self, message: Message) -> None:
        role = "model" if message.role is Role.ASSISTANT else "user"
        parts = [wire for part in message.content for wire in self._parts(part)]
        if not parts:
            return
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"].extend(parts)
        else:
            self.contents.append({"role": role, "parts": parts})

    def _parts(self, part: Part) -> list[WirePart]:
        if isinstance(part, ToolResult):
            return self._function_response(part)
        if isinstance(part, ToolCall):
            self._function_names[part.id] = part.name
        wire = _plain(part)
        signature = _signature(part)
        if signature:
            wire["thoughtSignature"] = signature
        elif isinstance(part, Reasoning) or wire.get("text") == "":
            return []
        return [wire]

    def _function_response(self, result: ToolResult) -> list[WirePart]:
        name = self._function_names.get(result.tool_call_id)
        if name is None:
            raise UpstreamError(Outcome.INVALID_REQUEST, "tool_result_without_call")
        text = "".join(part.text for part in result.content if isinstance(part, Text))
        response: WirePart = {
            "id": result.tool_call_id,
            "name": name,
            "response": {"error" if result.is_error else "result": text},
        }
        inside, beside = self._media(result.content)
        if inside:
            response["parts"] = inside
        return [{"functionResponse": response}, *beside]

    def _media(self, content: Sequence[Part]) -> tuple[list[WirePart], list[WirePart]]:
        """Return what goes into a response and what after it: files never, bytes only from Gemini 3 on."""
        blobs = [_plain(part) for part in content if isinstance(part, Blob)]
        files = [_plain(part) for part in content if isinstance(part, FileRef)]
        return (blobs, files) if self._responses_take_media else ([], blobs + files)


def _plain(part: Part) -> WirePart:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"text": text}
        case Reasoning(text=text):
            return {"text": text, "thought": True}
        case Blob(mime_type=mime_type, data=data):
            return {"inlineData": {"mimeType": mime_type, "data": data}}
        case FileRef(mime_type=mime_type, uri=uri):
            file = {"mimeType": mime_type, "fileUri": uri} if mime_type else {"fileUri": uri}
            return {"fileData": file}
        case ToolCall():
            return {"functionCall": {"id": part.id, "name": part.name, "args": _arguments(part)}}
        case ToolResult():
            raise UpstreamError(Outcome.INVALID_REQUEST, "tool_result_in_tool_result")


def _arguments(call: ToolCall) -> dict[str, Any]:
    if not call.arguments_json:
        return {}
    try:
        return _ARGUMENTS.decode(call.arguments_json)
    except msgspec.DecodeError:
        raise UpstreamError(Outcome.INVALID_REQUEST, "tool_arguments_not_an_object") from None


def _signature(part: Part) -> str:
    envelope = unseal(part.opaque_state)
    if envelope is None or envelope.kind != KIND_NAME:
        return ""
    try:
        return envelope.payload.decode("ascii")
    except UnicodeDecodeError:
        raise UpstreamError(Outcome.INVALID_REQUEST, "opaque_state_tampered") from None


def _excuse_missing_signatures(contents: Sequence[WireContent]) -> None:
    """Put the placeholder where the API would miss a signature: in the current turn, once per step."""
    for content in reversed(contents):
        parts: list[WirePart] = content["parts"]
        if content["role"] == "model":
            first_call = next((part for part in parts if "functionCall" in part), None)
            if first_call is not None:
                first_call.setdefault("thoughtSignature", _SKIP_VALIDATION)
        elif not any("functionResponse" in part for part in parts):
            return
