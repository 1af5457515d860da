"""A chat call becomes the body of ``generateContent`` and ``streamGenerateContent``. Pure.

JSON Schemas go over as they are (``parametersJsonSchema``, ``responseJsonSchema``); a choice is Gemini's
``text/x.enum``. What Gemini cannot do is not among the kind's capabilities, so that no call asks for it.
A tool's ``strict`` is a hint that Gemini has no word for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    ChatRequest,
    Choice,
    Generation,
    JsonObject,
    JsonSchema,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.providers._gemini_contents import contents_of, system_instruction
from router_server.providers._gemini_models import thinking_config
from router_server.providers._gemini_options import merge_options

_ENCODER: Final = msgspec.json.Encoder()

_MODES: Final = {ToolMode.AUTO: "AUTO", ToolMode.NONE: "NONE", ToolMode.REQUIRED: "ANY"}


def chat_body(call: UpstreamChat) -> bytes:
    """Return the request's body.

    Raises:
        UpstreamError: INVALID_REQUEST, with what cannot be sent.
    """
    if call.continuation is not None:
        raise UpstreamError(Outcome.INVALID_REQUEST, "continuation_unsupported")
    request = call.request
    body: dict[str, Any] = {"contents": contents_of(call.messages, call.model)}
    instruction = system_instruction(call.messages)
    if instruction is not None:
        body["systemInstruction"] = instruction
    body.update(_tools(request))
    config = _generation_config(request, call.model)
    if config:
        body["generationConfig"] = config
    merge_options(body, call.options)
    return _ENCODER.encode(body)


def _tools(request: ChatRequest) -> dict[str, Any]:
    choice = request.tool_choice
    declared = _declared(request.tools, choice)
    if not declared:
        return {}
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    calling = _calling(choice)
    if calling:
        fields["toolConfig"] = {"functionCallingConfig": calling}
    return fields


def _declared(tools: Sequence[Tool], choice: ToolChoice) -> list[dict[str, Any]]:
    """Return the declarations: Gemini restricts names only where it must call, else we hide the rest."""
    hidden = bool(choice.allowed) and choice.mode is not ToolMode.REQUIRED
    return [_declaration(tool) for tool in tools if not hidden or tool.name in choice.allowed]


def _declaration(tool: Tool) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if tool.parameters_json_schema:
        declaration["parametersJsonSchema"] = _raw(tool.parameters_json_schema)
    return declaration


def _calling(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode is None:
        return {}
    calling: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.allowed and choice.mode is ToolMode.REQUIRED:
        calling["allowedFunctionNames"] = list(choice.allowed)
    return calling


def _generation_config(request: ChatRequest, model: str) -> dict[str, Any]:
    generation = request.generation
    config = {name: value for name, value in _sampling(generation).items() if value is not None}
    if generation.stop_sequences:
        config["stopSequences"] = list(generation.stop_sequences)
    if generation.top_logprobs is not None:
        config["responseLogprobs"] = True
        if generation.top_logprobs:
            config["logprobs"] = generation.top_logprobs
    if generation.reasoning_effort is not None:
        config["thinkingConfig"] = thinking_config(model, generation.reasoning_effort)
    if request.response_format is not None:
        config.update(_format(request.response_format))
    return config


def _sampling(generation: Generation) -> dict[str, Any]:
    return {
        "maxOutputTokens": generation.max_output_tokens,
        "temperature": generation.temperature,
        "topP": generation.top_p,
        "topK": generation.top_k,
        "seed": generation.seed,
        "presencePenalty": generation.presence_penalty,
        "frequencyPenalty": generation.frequency_penalty,
    }


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    match response_format:
        case JsonObject():
            return {"responseMimeType": "application/json"}
        case JsonSchema(schema_json=schema):
            return {"responseMimeType": "application/json", "responseJsonSchema": _raw(schema)}
        case Choice(choices=choices):
            words = {"type": "STRING", "enum": list(choices)}
            return {"responseMimeType": "text/x.enum", "responseSchema": words}
        case _:
            raise UpstreamError(Outcome.INVALID_REQUEST, "response_format_unsupported")


def _raw(schema: str) -> msgspec.Raw:
    return msgspec.Raw(schema.encode())
