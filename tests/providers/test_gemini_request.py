import json
from collections.abc import Mapping
from typing import Any

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.options import REFUSED_OPTIONS
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    ChatRequest,
    Choice,
    Generation,
    JsonObject,
    JsonSchema,
    ReasoningEffort,
    Regex,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.providers._gemini_models import model_path
from router_server.providers._gemini_request import chat_body
from tests.providers.gemini_turns import (
    OLD,
    body_of,
    config,
    refusal_of,
    user,
)


def test_tools_carry_their_schema_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    body = body_of(tools=(Tool("f", "Does f.", json.dumps(schema), strict=True), Tool("g")))

    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "Does f.", "parametersJsonSchema": schema},
                {"name": "g"},
            ]
        }
    ]
    assert "toolConfig" not in body


@pytest.mark.parametrize(
    ("choice", "calling", "declared"),
    [
        (ToolChoice(ToolMode.AUTO), {"mode": "AUTO"}, ["f", "g"]),
        (ToolChoice(ToolMode.NONE), {"mode": "NONE"}, ["f", "g"]),
        (ToolChoice(ToolMode.REQUIRED), {"mode": "ANY"}, ["f", "g"]),
        (
            ToolChoice(ToolMode.REQUIRED, ("g",)),
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
            ["f", "g"],
        ),
        (ToolChoice(ToolMode.AUTO, ("g",)), {"mode": "AUTO"}, ["g"]),
        (ToolChoice(None, ("f",)), None, ["f"]),
    ],
)
def test_the_choice_of_tools(choice: ToolChoice, calling: Any, declared: list[str]) -> None:
    body = body_of(tools=(Tool("f"), Tool("g")), tool_choice=choice)

    assert body.get("toolConfig") == (calling and {"functionCallingConfig": calling})
    assert [tool["name"] for tool in body["tools"][0]["functionDeclarations"]] == declared


def test_a_choice_without_tools_says_nothing() -> None:
    assert body_of(tool_choice=ToolChoice(ToolMode.AUTO)).keys() == {"contents"}


def test_sampling() -> None:
    assert config(
        max_output_tokens=9,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        stop_sequences=("a", "b"),
        seed=0,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
    ) == {
        "maxOutputTokens": 9,
        "temperature": 0.0,
        "topP": 0.5,
        "topK": 3,
        "stopSequences": ["a", "b"],
        "seed": 0,
        "presencePenalty": 0.1,
        "frequencyPenalty": -0.1,
    }
    assert config() is None


def test_log_probabilities() -> None:
    assert config(top_logprobs=0) == {"responseLogprobs": True}
    assert config(top_logprobs=4) == {"responseLogprobs": True, "logprobs": 4}


@pytest.mark.parametrize(
    ("response_format", "fields"),
    [
        (JsonObject(), {"responseMimeType": "application/json"}),
        (
            JsonSchema("x", '{"type": "object"}'),
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
        (
            Choice(("yes", "no")),
            {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["yes", "no"]}},
        ),
    ],
)
def test_the_form_of_the_answer(response_format: ResponseFormat, fields: Any) -> None:
    assert body_of(response_format=response_format)["generationConfig"] == fields


def test_a_form_that_gemini_has_not_is_refused() -> None:
    assert refusal_of(response_format=Regex("a+")) == "response_format_unsupported"


MINIMAL, LOW, MEDIUM, HIGH, NONE = (
    ReasoningEffort.MINIMAL,
    ReasoningEffort.LOW,
    ReasoningEffort.MEDIUM,
    ReasoningEffort.HIGH,
    ReasoningEffort.NONE,
)


@pytest.mark.parametrize(
    ("name", "effort", "told"),
    [
        ("gemini-2.5-flash", NONE, {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini-2.5-pro", NONE, {"thinkingBudget": 128, "includeThoughts": False}),
        ("gemini-2.5-flash-lite", MINIMAL, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-pro", LOW, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-pro", MEDIUM, {"thinkingBudget": 8192, "includeThoughts": True}),
        ("models/gemini-2.5-flash", HIGH, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-flash-preview", NONE, {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
        ("gemini-3.5-flash-lite", MINIMAL, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3.8-flash", MINIMAL, {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", MINIMAL, {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", NONE, {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-3.1-pro-preview", LOW, {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", MEDIUM, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-flash-latest", HIGH, {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_effort_is_a_budget_for_gemini_2_and_a_level_after(
    name: str, effort: ReasoningEffort, told: Any
) -> None:
    assert config(name, reasoning_effort=effort) == {"thinkingConfig": told}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gemini-3-flash", "/models/gemini-3-flash"),
        ("models/gemini-3-flash", "/models/gemini-3-flash"),
        ("tunedModels/my model", "/tunedModels/my%20model"),
        ("a?key=b#c", "/models/a%3Fkey%3Db%23c"),
    ],
)
def test_a_model_is_a_path(name: str, path: str) -> None:
    assert model_path(name) == path


@pytest.mark.parametrize("name", ["../files", "models/..", "models//x", "/models/x", "..", ""])
def test_a_model_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(UpstreamError, match="invalid_model_name"):
        model_path(name)


def test_options_are_merged_into_the_request() -> None:
    body = body_of(
        tools=(Tool("f"),),
        generation=Generation(temperature=0.5, reasoning_effort=HIGH),
        options={
            "safetySettings": [{"category": "C", "threshold": "T"}],
            "tools": [{"googleSearch": {}}],
            "generation_config": {"temperature": 1, "thinking_config": {"include_thoughts": False}},
        },
    )

    assert body["safetySettings"] == [{"category": "C", "threshold": "T"}]
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}]
    assert body["generationConfig"] == {
        "temperature": 1,
        "thinkingConfig": {"thinkingBudget": 24576, "includeThoughts": False},
    }


def test_names_inside_a_callers_own_schema_are_left_alone() -> None:
    schema = {"properties": {"snake_case": {"type": "STRING"}}}

    body = body_of(options={"generationConfig": {"response_schema": schema}})

    assert body["generationConfig"] == {"responseSchema": schema}


@pytest.mark.parametrize(
    "options",
    [
        *({name: 1} for name in sorted(REFUSED_OPTIONS)),
        {"contents": []},
        {"systemInstruction": {}},
        {"system_instruction": {}},
        {"generationConfig": {"candidateCount": 2}},
        {"generationConfig": {"maxOutputTokens": 2}},
        {"generation_config": {"max_output_tokens": 2}},
        {"generation_config": {"candidate_count": 2}},
    ],
)
def test_what_the_router_sets_itself_is_refused_in_every_spelling(options: Mapping[str, Any]) -> None:
    assert refusal_of(options=options) == "provider_option_refused"


@pytest.mark.parametrize("options", [{"generationConfig": 3}, {"tools": {"googleSearch": {}}}])
def test_an_option_of_the_wrong_shape_is_refused(options: Mapping[str, Any]) -> None:
    assert refusal_of(options=options) == "provider_option_malformed"


def test_an_answer_cannot_be_continued() -> None:
    request = ChatRequest("route", (user("Hi"),))

    with pytest.raises(UpstreamError, match="continuation_unsupported"):
        chat_body(UpstreamChat(OLD, request, continuation="So"))
