import json
from collections.abc import Mapping
from typing import Any

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal
from router_server.core.options import REFUSED_OPTIONS
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    Blob,
    ChatRequest,
    Choice,
    FileRef,
    Generation,
    JsonObject,
    JsonSchema,
    Message,
    Part,
    Reasoning,
    ReasoningEffort,
    Refusal,
    Regex,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from router_server.providers._gemini_models import model_path
from router_server.providers._gemini_request import chat_body

SKIP = "skip_thought_signature_validator"
OLD, NEW = "gemini-2.5-flash", "gemini-3.1-pro-preview"


def says(role: Role, *content: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in content))


def user(*content: Part | str) -> Message:
    return says(Role.USER, *content)


def model(*content: Part | str) -> Message:
    return says(Role.ASSISTANT, *content)


def calls(name: str, identity: str, arguments: str = "{}", signature: str = "") -> ToolCall:
    return ToolCall(identity, name, arguments, signed(signature) if signature else b"")


def returns(identity: str, *content: Part | str, is_error: bool = False) -> Message:
    parts = tuple(Text(part) if isinstance(part, str) else part for part in content)
    return Message(Role.TOOL, (ToolResult(identity, parts, is_error),))


def signed(signature: str, kind: str = "gemini") -> bytes:
    return seal(kind, NEW, signature.encode())


def body_of(
    *messages: Message, name: str = OLD, options: Mapping[str, Any] | None = None, **rest: Any
) -> Any:
    request = ChatRequest("route", messages or (user("Hi"),), **rest)
    return json.loads(chat_body(UpstreamChat(name, request, options or {})))


def contents(*messages: Message, name: str = OLD) -> Any:
    return body_of(*messages, name=name)["contents"]


def config(name: str = OLD, **generation: Any) -> Any:
    return body_of(name=name, generation=Generation(**generation)).get("generationConfig")


def refusal_of(*messages: Message, **rest: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        body_of(*messages, **rest)
    assert caught.value.outcome is Outcome.INVALID_REQUEST
    return caught.value.reason


def test_a_plain_question_is_nothing_but_its_contents() -> None:
    assert body_of(user("Hi")) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_instructions_from_anywhere_make_up_the_system_instruction_in_order() -> None:
    body = body_of(
        says(Role.SYSTEM, "Be brief."),
        user("Hi"),
        says(Role.DEVELOPER, "Be kind.", "Be true."),
    )

    assert body["systemInstruction"] == {
        "parts": [{"text": "Be brief."}, {"text": "Be kind."}, {"text": "Be true."}]
    }
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_an_instruction_that_is_not_text_is_refused() -> None:
    picture = Blob("image/png", b"x")

    assert refusal_of(says(Role.SYSTEM, picture), user("Hi")) == "system_message_not_text"


def test_neighbours_of_one_role_become_one_content() -> None:
    turns = contents(user("a"), user("b"), model("c"), model(Refusal("d")), user("e"))

    assert turns == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}]},
    ]


def test_empty_text_is_left_out_for_gemini_refuses_it() -> None:
    assert contents(user("", "a"), model("")) == [{"role": "user", "parts": [{"text": "a"}]}]


@pytest.mark.parametrize("mime_type", ["image/png", "audio/wav", "application/pdf"])
def test_bytes_go_inline_and_addresses_as_files(mime_type: str) -> None:
    [turn] = contents(
        user(Blob(mime_type, b"\x00\xff"), FileRef(mime_type, "https://x/y"), FileRef("", "gs://b/o"))
    )

    assert turn["parts"] == [
        {"inlineData": {"mimeType": mime_type, "data": "AP8="}},
        {"fileData": {"mimeType": mime_type, "fileUri": "https://x/y"}},
        {"fileData": {"fileUri": "gs://b/o"}},
    ]


def test_results_of_parallel_calls_come_together_under_the_names_of_their_calls() -> None:
    turns = contents(
        user("Weather?"),
        model(calls("weather", "1", '{"city": "Oslo"}'), calls("time", "2", "")),
        returns("1", "rain", " and wind"),
        returns("2", "no clock", is_error=True),
    )

    assert turns[1]["parts"] == [
        {"functionCall": {"id": "1", "name": "weather", "args": {"city": "Oslo"}}},
        {"functionCall": {"id": "2", "name": "time", "args": {}}},
    ]
    assert turns[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "1", "name": "weather", "response": {"result": "rain and wind"}}},
            {"functionResponse": {"id": "2", "name": "time", "response": {"error": "no clock"}}},
        ],
    }


def test_media_of_a_result_go_inside_from_gemini_3_on_and_beside_it_before() -> None:
    history = (
        user("?"),
        model(calls("see", "1")),
        returns("1", Blob("image/png", b"x"), FileRef("image/png", "u")),
    )
    blob = {"inlineData": {"mimeType": "image/png", "data": "eA=="}}
    file = {"fileData": {"mimeType": "image/png", "fileUri": "u"}}

    new, old = contents(*history, name=NEW)[2]["parts"], contents(*history, name=OLD)[2]["parts"]

    assert (new[0]["functionResponse"]["parts"], new[1:]) == ([blob], [file])
    assert ("parts" in old[0]["functionResponse"], old[1:]) == (False, [blob, file])


def test_a_result_without_its_call_is_refused() -> None:
    assert refusal_of(user("?"), returns("1", "x")) == "tool_result_without_call"
    assert refusal_of(returns("1", "x"), model(calls("f", "1"))) == "tool_result_without_call"


def test_a_result_inside_a_user_turn_answers_its_call_as_well() -> None:
    turns = contents(user("?"), model(calls("f", "1")), user(ToolResult("1", (Text("x"),)), "Go on"))

    assert turns[2]["parts"][0]["functionResponse"]["name"] == "f"
    assert turns[2]["parts"][1] == {"text": "Go on"}


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", '"text"', '{"cut": '])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    assert refusal_of(user("?"), model(calls("f", "1", arguments))) == "tool_arguments_not_an_object"


def test_signatures_go_back_verbatim_on_their_own_parts() -> None:
    [_, turn] = contents(
        user("?"),
        model(
            Reasoning("Hm.", signed("A==")),
            Text("So", signed("B==")),
            Text("", signed("C==")),
            calls("f", "1", signature="D=="),
        ),
        name=NEW,
    )

    assert turn["parts"] == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "A=="},
        {"text": "So", "thoughtSignature": "B=="},
        {"text": "", "thoughtSignature": "C=="},
        {"functionCall": {"id": "1", "name": "f", "args": {}}, "thoughtSignature": "D=="},
    ]


def test_reasoning_without_a_signature_of_ours_stays_here() -> None:
    foreign = Reasoning("Secret plan", signed("X", kind="openai"))
    damaged = Reasoning("Cut", signed("X")[:5])

    assert contents(user("?"), model(foreign, damaged, Reasoning("Bare"), "So"))[1]["parts"] == [
        {"text": "So"}
    ]


def test_a_foreign_signature_is_not_sent() -> None:
    call = ToolCall("1", "f", "{}", signed("X", kind="openai"))

    assert "thoughtSignature" not in contents(user("?"), model(call))[1]["parts"][0]


def test_a_signature_that_was_tampered_with_is_refused() -> None:
    assert refusal_of(model(Text("x", seal("gemini", NEW, b"\xff")))) == "opaque_state_tampered"


def signatures(*messages: Message, name: str = NEW) -> list[list[str | None]]:
    return [
        [part.get("thoughtSignature") for part in turn["parts"] if "functionCall" in part]
        for turn in contents(*messages, name=name)
        if turn["role"] == "model"
    ]


FOREIGN_HISTORY = (
    user("Old question"),
    model(calls("f", "0")),
    returns("0", "x"),
    model("Old answer"),
    user("New question"),
    model("Let me see.", calls("f", "1"), calls("g", "2")),
    returns("1", "x"),
    returns("2", "y"),
    model(calls("h", "3")),
    returns("3", "z"),
)


def test_the_first_call_of_each_step_of_the_current_turn_is_excused() -> None:
    assert signatures(*FOREIGN_HISTORY) == [[None], [], [SKIP, None], [SKIP]]


@pytest.mark.parametrize(
    ("name", "excused"),
    [
        ("gemini-3-flash-preview", True),
        ("gemini-3.8-flash", True),
        ("gemini-flash-latest", True),
        ("gemini-2.5-pro", False),
        ("gemini-2.0-flash", False),
        ("gemma-4-31b-it", False),
    ],
)
def test_only_gemini_3_and_later_need_the_excuse(name: str, *, excused: bool) -> None:
    assert signatures(*FOREIGN_HISTORY, name=name)[-1] == [SKIP if excused else None]


def test_a_call_with_its_own_signature_needs_no_excuse() -> None:
    history = (user("?"), model(calls("f", "1", signature="A=="), calls("g", "2")), returns("1", "x"))

    assert signatures(*history) == [["A==", None]]


def test_a_remark_beside_a_result_does_not_begin_a_new_turn() -> None:
    history = (user("?"), model(calls("f", "1")), returns("1", "x"), user("Go on"), model(calls("f", "2")))

    assert signatures(*history) == [[SKIP], [SKIP]]


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
