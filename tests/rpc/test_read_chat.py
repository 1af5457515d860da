"""Chat requests: what a good one becomes, and every way in which one is bad, but for its messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from modelrouter.v1 import chat_pb2
from router_server.core.errors import RouterError
from router_server.core.types import (
    ChatRequest,
    Choice,
    Generation,
    Grammar,
    JsonObject,
    JsonSchema,
    Message,
    ReasoningEffort,
    Regex,
    Role,
    Routing,
    StreamRecovery,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.rpc.convert.chat import read_chat
from tests.rpc.reading import USER, bad_fields, read

TOOL: dict[str, Any] = {"function": {"name": "weather"}}


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": ""}, "model", "name a route"),
    ({"model": "x" * 257}, "model", "256 are allowed"),
    ({"generation": {"maxOutputTokens": 0}}, "generation.max_output_tokens", "at least 1, not 0"),
    ({"generation": {"temperature": 2.1}}, "generation.temperature", "between 0 and 2, not 2.1"),
    ({"generation": {"temperature": "NaN"}}, "generation.temperature", "not nan"),
    ({"generation": {"temperature": "Infinity"}}, "generation.temperature", "not inf"),
    ({"generation": {"topP": 0}}, "generation.top_p", "more than 0"),
    ({"generation": {"topP": "NaN"}}, "generation.top_p", "more than 0"),
    ({"generation": {"topK": 0}}, "generation.top_k", "at least 1"),
    ({"generation": {"stopSequences": ["a"] * 17}}, "generation.stop_sequences", "16 are allowed"),
    ({"generation": {"stopSequences": ["a", ""]}}, "generation.stop_sequences[1]", "must not be empty"),
    ({"generation": {"presencePenalty": -2.5}}, "generation.presence_penalty", "between -2 and 2"),
    ({"generation": {"frequencyPenalty": 3}}, "generation.frequency_penalty", "between -2 and 2"),
    ({"generation": {"topLogprobs": 21}}, "generation.top_logprobs", "between 0 and 20"),
    ({"generation": {"reasoningEffort": 77}}, "generation.reasoning_effort", "REASONING_EFFORT_MINIMAL"),
    ({"tools": [{}]}, "tools[0]", "set function"),
    ({"tools": [{"function": {"name": "a b"}}]}, "tools[0].function.name", "between 1 and 128"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "the name of an earlier tool"),
    (
        {"tools": [{"function": {"name": "a", "parametersJsonSchema": "true"}}]},
        "tools[0].function.parameters_json_schema",
        "not a boolean",
    ),
    ({"toolChoice": {"mode": "MODE_REQUIRED"}}, "tool_choice.mode", "needs at least one tool"),
    ({"toolChoice": {"mode": 8}}, "tool_choice.mode", "MODE_AUTO"),
    (
        {"tools": [TOOL], "toolChoice": {"allowedToolNames": ["weather", "x"]}},
        "tool_choice.allowed_tool_names[1]",
        '"x" is the name of no tool',
    ),
    (
        {"tools": [TOOL], "toolChoice": {"mode": "MODE_NONE", "allowedToolNames": ["weather"]}},
        "tool_choice.allowed_tool_names",
        "allows no tool",
    ),
    ({"responseFormat": {}}, "response_format", "set one of text, json_object"),
    (
        {"responseFormat": {"jsonSchema": {}}},
        "response_format.json_schema.schema_json",
        "must be a JSON object",
    ),
    (
        {"responseFormat": {"jsonSchema": {"name": "a b", "schemaJson": "{}"}}},
        "response_format.json_schema.name",
        "64",
    ),
    ({"responseFormat": {"regex": ""}}, "response_format.regex", "empty"),
    ({"responseFormat": {"grammar": ""}}, "response_format.grammar", "empty"),
    ({"responseFormat": {"choice": {}}}, "response_format.choice.choices", "at least one"),
    ({"responseFormat": {"choice": {"choices": ["a", ""]}}}, "response_format.choice.choices[1]", "empty"),
    ({"routing": {"allowedTargets": [""]}}, "routing.allowed_targets[0]", "empty"),
    ({"routing": {"allowedTargets": ["a", "a"]}}, "routing.allowed_targets[1]", "a second time"),
    ({"routing": {"firstTokenTimeout": "0s"}}, "routing.first_token_timeout", "not 0 s"),
    ({"routing": {"firstTokenTimeout": "-1s"}}, "routing.first_token_timeout", "not -1 s"),
    ({"routing": {"coalesceWindow": "1.5s"}}, "routing.coalesce_window", "between 0 s and 1 s"),
    ({"routing": {"coalesceWindow": "-0.1s"}}, "routing.coalesce_window", "not -0.1 s"),
    ({"routing": {"heartbeatInterval": "0.05s"}}, "routing.heartbeat_interval", "between 0.1 s and 3600 s"),
    ({"routing": {"streamRecovery": 9}}, "routing.stream_recovery", "STREAM_RECOVERY_RESTART"),
    ({"labels": {f"k{i}": "v" for i in range(33)}}, "labels", "32 are allowed"),
    ({"labels": {"": "v"}}, "labels", "between 1 and 64"),
    ({"labels": {"team": "v" * 257}}, 'labels["team"]', "256 are allowed"),
    ({"idempotencyKey": "k" * 257}, "idempotency_key", "256 are allowed"),
    ({"userId": "u" * 257}, "user_id", "256 are allowed"),
    ({"providerOptionsJson": {"openai": "1"}}, 'provider_options_json["openai"]', "not a number"),
    ({"providerOptionsJson": {"": "{}"}}, 'provider_options_json[""]', "name or kind"),
    (
        {"providerOptionsJson": {"openai": '{"model": "gpt-5"}'}},
        'provider_options_json["openai"].model',
        "set by the router",
    ),
]


def test_a_simple_request_takes_every_default() -> None:
    assert read() == ChatRequest("chat", (Message(Role.USER, (Text("hi"),)),))


def test_a_full_request() -> None:
    request = read(
        generation={
            "maxOutputTokens": 100,
            "temperature": 0.0,
            "topP": 0.5,
            "topK": 40,
            "stopSequences": ["END"],
            "seed": "-7",
            "presencePenalty": -2,
            "frequencyPenalty": 2,
            "reasoningEffort": "REASONING_EFFORT_HIGH",
            "topLogprobs": 0,
        },
        tools=[
            {
                "function": {
                    "name": "weather",
                    "description": "d",
                    "parametersJsonSchema": "{}",
                    "strict": True,
                }
            }
        ],
        toolChoice={"mode": "MODE_REQUIRED", "allowedToolNames": ["weather"], "parallel": False},
        routing={
            "allowedTargets": ["a", "b"],
            "allowFailover": False,
            "firstTokenTimeout": "1.5s",
            "streamRecovery": "STREAM_RECOVERY_RESUME",
            "priority": -3,
            "coalesceWindow": "0.05s",
            "allowCache": True,
            "heartbeatInterval": "2s",
        },
        labels={"team": "search"},
        idempotencyKey="k",
        providerOptionsJson={"openai": '{"logit_bias": {"1": 2}}'},
        userId="u",
    )
    assert request.generation == Generation(
        100, 0.0, 0.5, 40, ("END",), -7, -2.0, 2.0, ReasoningEffort.HIGH, 0
    )
    assert request.tools == (Tool("weather", "d", "{}", strict=True),)
    assert request.tool_choice == ToolChoice(ToolMode.REQUIRED, ("weather",), parallel=False)
    assert request.routing == Routing(("a", "b"), False, 1.5, StreamRecovery.RESUME, -3, 0.05, True, 2.0)
    assert (request.labels, request.idempotency_key, request.user_id) == ({"team": "search"}, "k", "u")
    assert request.provider_options == {"openai": {"logit_bias": {"1": 2}}}


@pytest.mark.parametrize(
    ("asked", "read_as"),
    [
        ({"text": {}}, None),
        ({"jsonObject": {}}, JsonObject()),
        ({"jsonSchema": {"schemaJson": "{}"}}, JsonSchema("response", "{}")),
        (
            {"jsonSchema": {"name": "n", "schemaJson": "{}", "strict": True}},
            JsonSchema("n", "{}", strict=True),
        ),
        ({"regex": "a+"}, Regex("a+")),
        ({"grammar": "root ::= x"}, Grammar("root ::= x")),
        ({"choice": {"choices": ["yes", "no"]}}, Choice(("yes", "no"))),
    ],
)
def test_response_formats(asked: dict[str, Any], read_as: object) -> None:
    assert read(responseFormat=asked).response_format == read_as


@pytest.mark.parametrize(("fields", "field", "says"), BAD_FIELDS, ids=[row[1] for row in BAD_FIELDS])
def test_a_bad_field(fields: dict[str, Any], field: str, says: str) -> None:
    found = bad_fields(**fields)
    assert list(found) == [field]
    assert says in found[field]


def test_all_bad_fields_are_told_at_once() -> None:
    found = bad_fields(
        model="", messages=[{}], generation={"temperature": 9}, routing={"coalesceWindow": "9s"}, tools=[{}]
    )
    assert list(found) == [
        "tools[0]",
        "model",
        "messages[0].role",
        "messages[0].content",
        "generation.temperature",
        "routing.coalesce_window",
    ]


def test_the_message_alone_says_what_to_do() -> None:
    with pytest.raises(RouterError) as one:
        read(model="")
    assert one.value.message == "model: name a route; ListModels tells which there are"
    with pytest.raises(RouterError) as two:
        read(model="", messages=[])
    assert two.value.message.startswith("2 fields are bad; the first is model: name a route")


def test_a_flood_of_bad_fields_is_counted_and_not_kept() -> None:
    with pytest.raises(RouterError) as caught:
        read(messages=[{}] * 5_000)
    assert len(caught.value.violations) == 64
    assert caught.value.message.startswith("10000 fields are bad")


def test_a_duration_out_of_the_formats_range_is_bad() -> None:
    request = chat_pb2.ChatRequest(model="chat")
    json_format.ParseDict({"messages": [USER]}, request)
    for seconds, nanos in ((1, -1), (0, 2_000_000_000), (10**18, 0)):
        request.routing.heartbeat_interval.seconds = seconds
        request.routing.heartbeat_interval.nanos = nanos
        with pytest.raises(RouterError, match="not a valid duration"):
            read_chat(request)


def test_json_is_never_quoted() -> None:
    found = bad_fields(providerOptionsJson={"openai": '{"api_key": "sk-secret", }'})
    assert "sk-secret" not in json.dumps(found)
