"""What is refused before it reaches the runtime; what the runtime does is in test_embedded.py."""

import json

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    Blob,
    ChatRequest,
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Generation,
    Grammar,
    JsonSchema,
    Message,
    Part,
    Reasoning,
    Refusal,
    Regex,
    Report,
    ResponseFormat,
    Role,
    Text,
    ToolResult,
)
from router_server.providers._embedded_wire import body_of, read
from tests.providers.asks import ask


def conversation(*turns: tuple[Role, Part]) -> UpstreamChat:
    return UpstreamChat("m", ChatRequest("route", tuple(Message(role, (part,)) for role, part in turns)))


def refusal_of(call: UpstreamChat) -> str:
    with pytest.raises(UpstreamError) as caught:
        body_of(call)
    assert caught.value.outcome is Outcome.INVALID_REQUEST
    return caught.value.reason


def test_roles_and_parts_become_plain_messages() -> None:
    call = conversation(
        (Role.DEVELOPER, Text("Be brief.")),
        (Role.USER, Text("Hi")),
        (Role.ASSISTANT, Reasoning("hm")),
        (Role.ASSISTANT, Refusal("No.")),
    )

    assert body_of(call)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "No."},
    ]


def test_what_the_caller_sets_wins_over_the_defaults() -> None:
    generation = Generation(
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=1,
        stop_sequences=("x",),
        presence_penalty=0.1,
    )
    body = body_of(ask("Hi", generation=generation))

    assert {key: body[key] for key in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")} == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 1,
        "stop": ["x"],
    }
    assert body["presence_penalty"] == 0.1
    assert "frequency_penalty" not in body


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (conversation((Role.TOOL, ToolResult("1", (Text("4"),)))), "tools_unsupported"),
        (conversation((Role.USER, Blob("image/png", b"\x89PNG"))), "content_unsupported"),
        (ask("Hi", options={"mirostat": 2}), "unknown_option"),
        (ask("Hi", response_format=Regex("a+")), "format_unsupported"),
        (ask("Hi", response_format=Grammar('root ::= "a"')), "format_unsupported"),
    ],
)
def test_what_the_model_cannot_take_is_refused(call: UpstreamChat, reason: str) -> None:
    assert refusal_of(call) == reason


SCHEMAS_THE_RUNTIME_ENFORCES = [
    {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
    {"type": ["string", "null"], "description": "A name.", "maxLength": 9},
    {"anyOf": [{"const": "x"}, {"enum": [1, 2]}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "number"}}},
]
SCHEMAS_IT_WOULD_NOT = [
    {"type": "string", "pattern": "^a+$"},
    {"type": "string", "format": "date"},
    {"type": "number", "minimum": 0},
    {"type": "array", "uniqueItems": True},
    {"not": {"type": "string"}},
    {"oneOf": [{"type": "string"}]},
    {"allOf": [{"type": "string"}]},
    {"anyOf": [{"type": "string"}], "maxLength": 3},
    {"enum": ["a"], "const": "a"},
    {"type": "object", "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}},
    {"type": "array", "items": {"not": {}}},
    {"type": "array", "items": [{"type": "string"}]},
    {"type": "object", "additionalProperties": {"pattern": "a"}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "a"}}},
    {"type": "integer", "minimum": 9, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4},
    {"type": "array", "minItems": 4, "maxItems": 3},
    {"type": "string", "minLength": 4, "maxLength": 3},
    True,
    [],
]


@pytest.mark.parametrize("schema", SCHEMAS_THE_RUNTIME_ENFORCES, ids=json.dumps)
def test_a_schema_that_can_be_enforced_goes_through(schema: object) -> None:
    body = body_of(ask("Hi", response_format=JsonSchema("x", json.dumps(schema))))

    assert body["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize("schema", SCHEMAS_IT_WOULD_NOT, ids=json.dumps)
def test_a_schema_that_would_be_ignored_in_part_is_refused(schema: object) -> None:
    assert refusal_of(ask("Hi", response_format=JsonSchema("x", json.dumps(schema)))) == "schema_unsupported"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"const": NaN}',
        '{"const": "\\ud800"}',
        '{"properties": 5}',
        '{"required": [{}]}',
        '{"type": "integer", "minimum": "x"}',
        '{"items": ' * 5000 + "{}" + "}" * 5000,
    ],
    ids=lambda text: text[:30],
)
def test_a_schema_that_is_none_is_refused(text: str) -> None:
    wanted: ResponseFormat = JsonSchema("x", text)

    assert refusal_of(ask("Hi", response_format=wanted)) == "bad_schema"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        ({"code": 400, "type": "exceed_context_size_error"}, Outcome.CONTEXT_LENGTH, "context_length"),
        ({"code": 400, "type": "invalid_request_error"}, Outcome.INVALID_REQUEST, "engine_400"),
        ({"code": 500, "type": "server_error"}, Outcome.UNAVAILABLE, "engine_500"),
        ({}, Outcome.UNAVAILABLE, "engine_500"),
    ],
)
def test_an_error_chunk_is_classed(error: dict[str, object], outcome: Outcome, reason: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        list(read({"error": {**error, "message": "the caller's own words"}}))

    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)
    assert "words" not in str(caught.value)


def test_chunks_become_items() -> None:
    def choice(content: str | None, reason: str | None = None) -> dict[str, object]:
        return {"choices": [{"delta": {"content": content}, "finish_reason": reason}]}

    assert list(read(choice("Hi"))) == [Delta(0, DeltaKind.TEXT, "Hi")]
    assert list(read(choice(None))) == []
    assert list(read(choice(None, "length"))) == [Finish(FinishReason.LENGTH)]
    assert list(read(choice(None, "something new"))) == [Finish(FinishReason.OTHER)]
    assert list(read({**choice(None), "prompt_progress": {"processed": 256}})) == [Report()]
