"""A whole Gemini answer becomes ours, and a part of one at a time. Pure. Refuses to know streams."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal
from router_server.core.types import Answer, Blob, Message, Reasoning, Role, Text, ToolCall
from router_server.providers._gemini_contents import KIND_NAME
from router_server.providers._gemini_shapes import (
    NULL,
    WireCandidate,
    WireFunctionCall,
    WirePart,
    decode,
    finish_of,
    logprobs_of,
    prompt_blocked,
    usage_of,
)
from router_server.providers._json import UNREADABLE

AnswerPart = Text | Reasoning | ToolCall | Blob


def read_answer(body: bytes, model: str, retry_after_cap: float) -> Answer:
    """Read the answer that ``model`` gave, part by part as it gave it.

    Raises:
        UpstreamError: MALFORMED; CONTENT_FILTER; what an error object in the body means.
    """
    answer = decode(body, retry_after_cap)
    usage = usage_of(answer.usage_metadata)
    if answer.blocked:
        raise prompt_blocked(usage)
    candidate = answer.candidate
    if candidate is None:
        raise UpstreamError(Outcome.MALFORMED, "no_candidates", usage=usage)
    if not candidate.ending:
        raise UpstreamError(Outcome.MALFORMED, "no_finish_reason", usage=usage)
    parts = tuple(read_parts(candidate, model))
    return Answer(
        message=Message(Role.ASSISTANT, parts),
        finish_reason=finish_of(
            candidate.ending,
            has_content=bool(parts),
            has_tool_calls=any(isinstance(part, ToolCall) for part in parts),
            usage=usage,
        ),
        usage=usage,
        reported_model=answer.model_version or "",
        logprobs=logprobs_of(candidate.logprobs_result),
    )


def read_parts(candidate: WireCandidate, model: str) -> Iterator[AnswerPart]:
    """Yield the parts of ``candidate``, each with its sealed signature; empty ones only if signed.

    Raises:
        UpstreamError: MALFORMED.
    """
    if candidate.content is None:
        return
    for wire in candidate.content.parts or ():
        part = _read_part(wire, _sealed(wire.thought_signature, model))
        if part is not None:
            yield part


def _read_part(wire: WirePart, opaque_state: bytes) -> AnswerPart | None:
    if wire.function_call is not None:
        return _tool_call(wire.function_call, opaque_state)
    if wire.inline_data is not None:
        blob = wire.inline_data
        return Blob(blob.mime_type or "", blob.data or b"", opaque_state=opaque_state)
    if wire.text is None or not (wire.text or opaque_state):
        return None
    return Reasoning(wire.text, opaque_state) if wire.thought else Text(wire.text, opaque_state)


def _tool_call(call: WireFunctionCall, opaque_state: bytes) -> ToolCall:
    if not call.name:
        raise UpstreamError(Outcome.MALFORMED, "wrong_shape")
    return ToolCall(call.id or f"call_{uuid.uuid4().hex}", call.name, _arguments(call), opaque_state)


def _arguments(call: WireFunctionCall) -> str:
    """Return the arguments as Gemini wrote them, without the line breaks of its pretty printing."""
    if call.args == NULL:
        return "{}"
    raw = bytes(call.args)
    if not raw.startswith(b"{"):
        raise UpstreamError(Outcome.MALFORMED, "wrong_shape")
    try:
        return msgspec.json.format(raw, indent=-1).decode()
    except UNREADABLE:
        raise UpstreamError(Outcome.MALFORMED, "not_json") from None


def _sealed(signature: str | None, model: str) -> bytes:
    return seal(KIND_NAME, model, signature.encode()) if signature else b""
