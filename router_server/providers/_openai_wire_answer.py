"""A whole chat answer of the OpenAI shape becomes ours. Pure. Refuses to know streams."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import Answer, Message, Part, Reasoning, Refusal, Role, Text, ToolCall
from router_server.providers._json import decoded
from router_server.providers._openai_wire_errors import stream_failure
from router_server.providers._openai_wire_shapes import (
    ANSWER,
    WireAnswer,
    WireChoice,
    WireMessage,
    WireToolCall,
    error_in,
    finish_reason,
    logprobs_of,
    times_of,
    usage_of,
)


def new_call_id() -> str:
    """Return an id for a tool call to which the server gave none."""
    return f"call_{uuid.uuid4().hex}"


def read_answer(body: bytes) -> Answer:
    """Read a whole answer.

    Raises:
        UpstreamError: MALFORMED, or what an error object in the body means.
    """
    answer = decode(body)
    choice = _first(answer.choices or ())
    if choice is None or choice.message is None:
        raise UpstreamError(Outcome.MALFORMED, "no_choices")
    parts = _parts(choice.message)
    return Answer(
        message=Message(Role.ASSISTANT, parts),
        finish_reason=finish_reason(_finish_word(choice), has_tool_calls=bool(choice.message.tool_calls)),
        usage=usage_of(answer.usage) if answer.usage else None,
        reported_model=answer.model or "",
        logprobs=logprobs_of(choice.logprobs) if choice.logprobs else (),
        engine=times_of(answer.metrics),
    )


def decode(body: bytes) -> WireAnswer:
    """Decode an answer or a chunk.

    Raises:
        UpstreamError: MALFORMED, ``not_json`` or ``wrong_shape``; or what an error object in it means.
    """
    answer = decoded(ANSWER, body)
    error = error_in(answer.error)
    if error is not None:
        raise stream_failure(error)
    return answer


def _first(choices: Sequence[WireChoice]) -> WireChoice | None:
    for choice in choices:
        if choice.index == 0:
            return choice
    return None


def _finish_word(choice: WireChoice) -> str:
    if not choice.finish_reason:
        raise UpstreamError(Outcome.MALFORMED, "no_finish_reason")
    return choice.finish_reason


def _parts(message: WireMessage) -> tuple[Part, ...]:
    parts: list[Part] = []
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        parts.append(Reasoning(reasoning))
    if message.content:
        parts.append(Text(message.content))
    if message.refusal:
        parts.append(Refusal(message.refusal))
    if message.tool_calls:
        parts.extend(map(_tool_call, message.tool_calls))
    return tuple(parts)


def _tool_call(call: WireToolCall) -> ToolCall:
    if call.function is None or not call.function.name:
        raise UpstreamError(Outcome.MALFORMED, "tool_call_without_name")
    return ToolCall(call.id or new_call_id(), call.function.name, call.function.arguments or "")
