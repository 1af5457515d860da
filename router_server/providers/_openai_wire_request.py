"""A chat request becomes the JSON body of OpenAI's chat completions. Pure.

What servers understand differently is in a `Dialect`. Refuses to know how a body is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.options import refused_options
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    Choice,
    Generation,
    Grammar,
    Json,
    JsonObject,
    JsonSchema,
    Regex,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.providers._openai_wire_messages import messages_of

_ENCODER: Final = msgspec.json.Encoder()

_ALIKE: Final = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
)
"""Parameters that have the same name on this wire."""

Constraint = Regex | Grammar | Choice


def _no_constraint(_: Constraint) -> dict[str, Any]:
    raise UpstreamError(Outcome.INVALID_REQUEST, "unsupported_response_format")


def _nothing_more(_: UpstreamChat) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where servers of this wire differ.

    Attributes:
        max_tokens_field: the name under which the answer's limit is sent.
        developer_role: whether the server knows the role ``developer``; otherwise ``system`` stands for it.
        allowed_tools: whether ``tool_choice`` can name the allowed tools; otherwise only they are offered.
        stream_usage: whether to ask for usage at the end of a stream.
        reasoning_history: whether the model's earlier thinking is sent back to it.
        constrain: fields for an answer that must match; raises where the server has no such thing.
        more: further fields of a body.
    """

    max_tokens_field: str = "max_tokens"
    developer_role: bool = False
    allowed_tools: bool = False
    stream_usage: bool = True
    reasoning_history: bool = False
    constrain: Callable[[Constraint], dict[str, Any]] = _no_constraint
    more: Callable[[UpstreamChat], dict[str, Any]] = _nothing_more


def chat_body(call: UpstreamChat, dialect: Dialect, *, stream: bool) -> bytes:
    """Return the body of a chat request.

    Raises:
        UpstreamError: INVALID_REQUEST, where the request cannot be said on this wire.
    """
    request = call.request
    body: dict[str, Any] = {
        "model": call.model,
        "messages": messages_of(
            call, developer_role=dialect.developer_role, reasoning_history=dialect.reasoning_history
        ),
    }
    if stream:
        body["stream"] = True
        if dialect.stream_usage:
            body["stream_options"] = {"include_usage": True}
    body |= _generation(request.generation, dialect.max_tokens_field)
    if request.tools:
        body.update(_tools(request.tools, request.tool_choice, native=dialect.allowed_tools))
    if request.response_format is not None:
        body.update(_response_format(request.response_format, dialect))
    body.update(dialect.more(call))
    return encode(body, call.options)


def encode(body: dict[str, Any], options: Json) -> bytes:
    """Return the JSON of ``body`` with the caller's provider options merged in at the top level.

    Raises:
        UpstreamError: INVALID_REQUEST: an option is refused, or something is not JSON.
    """
    if options:
        if refused_options(options):
            raise UpstreamError(Outcome.INVALID_REQUEST, "provider_option_refused")
        body = {**body, **options}
    try:
        return _ENCODER.encode(body)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, RecursionError):
        raise UpstreamError(Outcome.INVALID_REQUEST, "request_not_json") from None


@lru_cache(maxsize=64)  # callers keep to a few; to write one takes 4,000 instructions
def _generation(generation: Generation, max_tokens_field: str) -> Mapping[str, Any]:
    body: dict[str, Any] = {}
    for name in _ALIKE:
        value = getattr(generation, name)
        if value is not None:
            body[name] = value
    if generation.max_output_tokens is not None:
        body[max_tokens_field] = generation.max_output_tokens
    if generation.stop_sequences:
        body["stop"] = generation.stop_sequences
    if generation.top_logprobs is not None:
        body["logprobs"] = True
        if generation.top_logprobs:
            body["top_logprobs"] = generation.top_logprobs
    return body


def _tools(tools: tuple[Tool, ...], choice: ToolChoice, *, native: bool) -> Mapping[str, Any]:
    offered = tools
    if choice.allowed and not native:
        offered = tuple(tool for tool in tools if tool.name in choice.allowed)
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in offered]}
    if choice.allowed and native and choice.mode is not ToolMode.NONE:
        fields["tool_choice"] = _allowed(choice)
    elif choice.mode is not None:
        fields["tool_choice"] = choice.mode
    if choice.parallel is not None:
        fields["parallel_tool_calls"] = choice.parallel
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters_json_schema:
        function["parameters"] = msgspec.Raw(tool.parameters_json_schema.encode())
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _allowed(choice: ToolChoice) -> dict[str, Any]:
    names = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": choice.mode or ToolMode.AUTO, "tools": names},
    }


def _response_format(wanted: ResponseFormat, dialect: Dialect) -> Mapping[str, Any]:
    if isinstance(wanted, JsonObject):
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, JsonSchema):
        schema: dict[str, Any] = {
            "name": wanted.name or "answer",
            "schema": msgspec.Raw(wanted.schema_json.encode()),
        }
        if wanted.strict:
            schema["strict"] = True
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return dialect.constrain(wanted)
