"""A chat request of the contract, as the core's `ChatRequest`, or every bad field of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelrouter.v1 import chat_pb2 as pb
from router_server.core.types import (
    ChatRequest,
    Choice,
    Generation,
    Grammar,
    JsonObject,
    JsonSchema,
    ReasoningEffort,
    Regex,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.rpc.convert.common import (
    NO_WISH,
    read_labels,
    read_model,
    read_name,
    read_provider_options,
    read_routing,
)
from router_server.rpc.convert.fields import Fields, quote
from router_server.rpc.convert.messages import read_messages

_MODES: Mapping[int, ToolMode] = {
    pb.ToolChoice.MODE_AUTO: ToolMode.AUTO,
    pb.ToolChoice.MODE_NONE: ToolMode.NONE,
    pb.ToolChoice.MODE_REQUIRED: ToolMode.REQUIRED,
}
_EFFORTS: Mapping[int, ReasoningEffort] = {
    pb.REASONING_EFFORT_NONE: ReasoningEffort.NONE,
    pb.REASONING_EFFORT_MINIMAL: ReasoningEffort.MINIMAL,
    pb.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    pb.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    pb.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What the widest of the providers takes; a narrower one refuses by itself."""
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEFAULT_SCHEMA_NAME = "response"
_MOST_TOOLS = 1_024
"""OpenAI takes 128; each costs time to read that other calls wait for."""
_MOST_STOPS = 16
_LONGEST_STOP = 1_024
_LONGEST_PATTERN = 65_536
_MOST_CHOICES = 1_024
_ANY_TOOL = ToolChoice()
_MOST_KNOWN: Final = 256
_LONGEST_KNOWN: Final = 256
"""Bytes of a config that is kept."""
_KNOWN: Final[dict[bytes, Generation]] = {}
"""To read one anew takes 15,000 instructions, to find it 3,000."""


def read_chat(request: pb.ChatRequest) -> ChatRequest:
    """Return the core's request.

    Raises:
        RouterError: INVALID_REQUEST, with every bad field.
    """
    fields = Fields()
    tools = _tools(request.tools, fields) if request.tools else ()
    chat = ChatRequest(
        model=read_model(request.model, fields),
        messages=read_messages(request.messages, fields),
        generation=_generation(request.generation, fields),
        tools=tools,
        tool_choice=(
            _tool_choice(request.tool_choice, tools, fields) if request.HasField("tool_choice") else _ANY_TOOL
        ),
        response_format=_response_format(request, fields),
        routing=read_routing(request.routing, fields) if request.HasField("routing") else NO_WISH,
        labels=read_labels(request.labels, fields),
        idempotency_key=read_name("idempotency_key", request.idempotency_key, fields),
        provider_options=read_provider_options(request.provider_options_json, fields),
        user_id=read_name("user_id", request.user_id, fields),
    )
    fields.raise_if_any()
    return chat


def _generation(config: pb.GenerationConfig, fields: Fields) -> Generation:
    """Return what a config says; those that were read lately are kept, as callers keep to a few."""
    written = config.SerializeToString()
    known = _KNOWN.get(written)
    if known is not None:
        return known
    generation = _read_generation(config, fields)
    if len(written) <= _LONGEST_KNOWN and not fields:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[written] = generation
    return generation


def _read_generation(config: pb.GenerationConfig, fields: Fields) -> Generation:
    # Only what is set is looked at: asking ten fields whether they are takes 4 µs.
    read = {}
    for descriptor, value in config.ListFields():
        name = descriptor.name
        read[name] = _PARAMETERS[name](value, fields)
    return Generation(**read)


def _integer(name: str, least: int, most: int | None = None) -> Callable[[int, Fields], int]:
    field = f"generation.{name}"
    return lambda value, fields: fields.integer(field, value, least, most)


def _real(name: str, least: float, most: float) -> Callable[[float, Fields], float]:
    field = f"generation.{name}"
    return lambda value, fields: fields.real(field, value, least, most)


def _top_p(value: float, fields: Fields) -> float:
    if not 0 < value <= 1:
        fields.wrong("generation.top_p", f"must be more than 0 and at most 1, not {value:g}")
    return value


def _effort(value: int, fields: Fields) -> ReasoningEffort | None:
    return fields.choice("generation.reasoning_effort", value, _EFFORTS, pb.ReasoningEffort)


def _stop_sequences(stops: Sequence[str], fields: Fields) -> tuple[str, ...]:
    if len(stops) > _MOST_STOPS:
        fields.wrong("generation.stop_sequences", f"has {len(stops)} entries; {_MOST_STOPS} are allowed")
        return ()
    for index, stop in enumerate(stops):
        fields.text(f"generation.stop_sequences[{index}]", stop, most=_LONGEST_STOP, required=True)
    return tuple(stops)


_PARAMETERS: Mapping[str, Callable[[Any, Fields], Any]] = {
    "max_output_tokens": _integer("max_output_tokens", 1),
    "temperature": _real("temperature", 0.0, 2.0),
    "top_p": _top_p,
    "top_k": _integer("top_k", 1),
    "stop_sequences": _stop_sequences,
    "seed": lambda value, _fields: value,
    "presence_penalty": _real("presence_penalty", -2.0, 2.0),
    "frequency_penalty": _real("frequency_penalty", -2.0, 2.0),
    "reasoning_effort": _effort,
    "top_logprobs": _integer("top_logprobs", 0, 20),
}
"""How each field of a GenerationConfig is read; `Generation` calls them by the same names."""


def _tools(tools: Sequence[pb.Tool], fields: Fields) -> tuple[Tool, ...]:
    read: dict[str, Tool] = {}
    if len(tools) > _MOST_TOOLS:
        fields.wrong("tools", f"has {len(tools)} entries; {_MOST_TOOLS} are allowed")
        return ()
    for index, tool in enumerate(tools):
        if tool.WhichOneof("tool") is None:
            fields.wrong(f"tools[{index}]", "set function; this server knows no other tool")
            continue
        field = f"tools[{index}].function"
        if tool.function.name in read:
            fields.wrong(
                f"{field}.name",
                f"{quote(tool.function.name)} is the name of an earlier tool; names are unique",
            )
        read[tool.function.name] = _function(field, tool.function, fields)
    return tuple(read.values())


def _function(field: str, function: pb.FunctionTool, fields: Fields) -> Tool:
    if not _TOOL_NAME.fullmatch(function.name):
        fields.wrong(
            f"{field}.name", "must have between 1 and 128 of the characters A-Z, a-z, 0-9, _, -, . and :"
        )
    schema = function.parameters_json_schema
    if schema:
        fields.json_object(f"{field}.parameters_json_schema", schema)
    return Tool(function.name, function.description, schema, function.strict)


def _tool_choice(choice: pb.ToolChoice, tools: Sequence[Tool], fields: Fields) -> ToolChoice:
    mode = fields.choice("tool_choice.mode", choice.mode, _MODES, pb.ToolChoice.Mode)
    names = {tool.name for tool in tools}
    if len(choice.allowed_tool_names) > _MOST_TOOLS:
        fields.wrong("tool_choice.allowed_tool_names", f"has more than {_MOST_TOOLS} entries")
        return ToolChoice()
    for index, name in enumerate(choice.allowed_tool_names):
        if name not in names:
            fields.wrong(
                f"tool_choice.allowed_tool_names[{index}]", f"{quote(name)} is the name of no tool in tools"
            )
    if mode is ToolMode.REQUIRED and not tools:
        fields.wrong("tool_choice.mode", "MODE_REQUIRED needs at least one tool in tools")
    if mode is ToolMode.NONE and choice.allowed_tool_names:
        fields.wrong("tool_choice.allowed_tool_names", "MODE_NONE allows no tool; leave the names out")
    parallel = choice.parallel if choice.HasField("parallel") else None
    return ToolChoice(mode, tuple(choice.allowed_tool_names), parallel)


def _response_format(request: pb.ChatRequest, fields: Fields) -> ResponseFormat | None:
    if not request.HasField("response_format"):
        return None
    kind = request.response_format.WhichOneof("format")
    if kind is None:
        fields.wrong("response_format", f"set one of {', '.join(_FORMATS)}; or leave it out")
        return None
    return _FORMATS[kind](request.response_format, fields)


def _regex(asked: pb.ResponseFormat, fields: Fields) -> Regex:
    return Regex(fields.text("response_format.regex", asked.regex, most=_LONGEST_PATTERN, required=True))


def _grammar(asked: pb.ResponseFormat, fields: Fields) -> Grammar:
    return Grammar(
        fields.text("response_format.grammar", asked.grammar, most=_LONGEST_PATTERN, required=True)
    )


def _json_schema(asked: pb.ResponseFormat, fields: Fields) -> JsonSchema:
    schema = asked.json_schema
    name = schema.name or _DEFAULT_SCHEMA_NAME
    if not _SCHEMA_NAME.fullmatch(name):
        fields.wrong(
            "response_format.json_schema.name",
            "must have at most 64 of the characters A-Z, a-z, 0-9, _ and -",
        )
    fields.json_object("response_format.json_schema.schema_json", schema.schema_json)
    return JsonSchema(name, schema.schema_json, schema.strict)


def _choice(asked: pb.ResponseFormat, fields: Fields) -> Choice:
    field = "response_format.choice.choices"
    choices = asked.choice.choices
    if not choices:
        fields.wrong(field, "name at least one choice")
    if len(choices) > _MOST_CHOICES:
        fields.wrong(field, f"has {len(choices)} entries; {_MOST_CHOICES} are allowed")
        return Choice(())
    for index, choice in enumerate(choices):
        fields.text(f"{field}[{index}]", choice, most=_LONGEST_PATTERN, required=True)
    return Choice(tuple(choices))


_FORMATS: Mapping[str, Callable[[pb.ResponseFormat, Fields], ResponseFormat | None]] = {
    "text": lambda _asked, _fields: None,
    "json_object": lambda _asked, _fields: JsonObject(),
    "json_schema": _json_schema,
    "regex": _regex,
    "grammar": _grammar,
    "choice": _choice,
}
