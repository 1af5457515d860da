"""What a request becomes on OpenAI's wire, without a socket."""

import json
from typing import Any

import msgspec
import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal
from router_server.core.options import REFUSED_OPTIONS, refused_options
from router_server.core.types import (
    Blob,
    Choice,
    FileRef,
    Generation,
    Grammar,
    JsonObject,
    JsonSchema,
    MediaDetail,
    Message,
    Part,
    Reasoning,
    ReasoningEffort,
    Refusal,
    Regex,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from router_server.providers._openai_wire_request import Dialect, chat_body
from tests.providers.openai_talk import call

OPENAI = Dialect(max_tokens_field="max_completion_tokens", developer_role=True, allowed_tools=True)
COMPATIBLE = Dialect()


def body(*messages: Message, dialect: Dialect = OPENAI, streamed: bool = False, **fields: Any) -> Any:
    return json.loads(chat_body(call(*messages, **fields), dialect, stream=streamed))


def content(*parts: Part, role: Role = Role.USER) -> Any:
    return body(Message(role, parts))["messages"][0]["content"]


def refused(*messages: Message, dialect: Dialect = OPENAI, **fields: Any) -> str:
    with pytest.raises(UpstreamError) as caught:
        chat_body(call(*messages, **fields), dialect, stream=False)
    assert caught.value.outcome is Outcome.INVALID_REQUEST
    return caught.value.reason


def test_the_smallest_request() -> None:
    assert body() == {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}


def test_a_stream_asks_for_its_usage() -> None:
    assert body(streamed=True) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_server_that_refuses_the_question_is_not_asked_for_usage() -> None:
    assert "stream_options" not in body(streamed=True, dialect=Dialect(stream_usage=False))


def test_roles_and_names() -> None:
    turns = [
        Message(Role.SYSTEM, (Text("s"),)),
        Message(Role.DEVELOPER, (Text("d"),)),
        Message(Role.USER, (Text("u"),), name="ann"),
        Message(Role.ASSISTANT, (Text("a"),)),
    ]
    assert body(*turns)["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "name": "ann", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    assert body(*turns, dialect=COMPATIBLE)["messages"][1] == {"role": "system", "content": "d"}


def test_several_texts_stay_apart() -> None:
    assert content(Text("a"), Text("b")) == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_an_empty_message() -> None:
    assert content() == ""
    assert content(role=Role.ASSISTANT) == ""


def test_images() -> None:
    assert content(
        Text("See:"),
        Blob("image/PNG", b"\x89P", detail=MediaDetail.HIGH),
        FileRef("image/jpeg", "https://x/y.jpg", MediaDetail.LOW),
        FileRef("", "https://x/z"),
    ) == [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVA=", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.jpg", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x/z"}},
    ]


@pytest.mark.parametrize(
    ("mime_type", "name"), [("audio/wav", "wav"), ("audio/x-wav", "wav"), ("audio/mpeg", "mp3")]
)
def test_audio(mime_type: str, name: str) -> None:
    assert content(Blob(mime_type, b"RI")) == [
        {"type": "input_audio", "input_audio": {"data": "Ukk=", "format": name}}
    ]


@pytest.mark.parametrize(
    ("blob", "filename"),
    [
        (Blob("application/pdf", b"%P", filename="a.pdf"), "a.pdf"),
        (Blob("application/pdf", b"%P"), "document.pdf"),
        (Blob("text/plain; charset=utf-8", b"%P"), "document.txt"),
    ],
)
def test_documents(blob: Blob, filename: str) -> None:
    data = f"data:{blob.mime_type};base64,JVA="
    assert content(blob) == [{"type": "file", "file": {"filename": filename, "file_data": data}}]


@pytest.mark.parametrize(
    "message",
    [
        Message(Role.USER, (Blob("video/mp4", b""),)),
        Message(Role.USER, (Blob("audio/flac", b""),)),
        Message(Role.USER, (Blob("", b""),)),
        Message(Role.USER, (FileRef("application/pdf", "https://x/y.pdf"),)),
        Message(Role.USER, (ToolCall("i", "n", "{}"),)),
        Message(Role.TOOL, (Text("no call"),)),
        Message(Role.TOOL, ()),
        Message(Role.TOOL, (ToolResult("i", (Blob("image/png", b""),)),)),
    ],
)
def test_what_has_no_place_on_this_wire(message: Message) -> None:
    assert refused(message) == "unsupported_content"


CALLS = (ToolCall("a", "weather", '{"city": "Rome"}'), ToolCall("b", "time", ""))


def test_tool_calls_and_their_results() -> None:
    turns = [
        Message(Role.ASSISTANT, (Text("Looking."), *CALLS)),
        Message(
            Role.TOOL,
            (ToolResult("a", (Text("21 °C"),)), ToolResult("b", (Text("x"), Text("y")), is_error=True)),
        ),
    ]
    assert body(*turns)["messages"] == [
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                },
                {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "21 °C"},
        {
            "role": "tool",
            "tool_call_id": "b",
            "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}],
        },
    ]


def test_a_result_in_a_users_turn_is_a_message_of_its_own() -> None:
    turn = Message(Role.USER, (ToolResult("a", (Text("21"),)), Text("And now?")))
    assert [message["role"] for message in body(turn)["messages"]] == ["tool", "user"]
    assert [m["role"] for m in body(Message(Role.USER, turn.content[:1]))["messages"]] == ["tool"]


def test_only_calls_or_a_refusal_leave_no_content() -> None:
    assert body(Message(Role.ASSISTANT, CALLS))["messages"][0]["content"] is None
    message = body(Message(Role.ASSISTANT, (Refusal("No."),)))["messages"][0]
    assert message == {"role": "assistant", "content": None, "refusal": "No."}


def test_reasoning_and_opaque_state_are_not_sent_back() -> None:
    state = seal("gemini", "m", b"secret state")
    turn = Message(
        Role.ASSISTANT, (Reasoning("hm", state), Text("4", state), ToolCall("a", "f", "{}", state))
    )
    raw = chat_body(call(turn), OPENAI, stream=False)
    assert b"hm" not in raw
    assert b"secret" not in raw
    assert b"c2VjcmV0" not in raw


def test_sampling() -> None:
    sent = body(
        generation=Generation(
            max_output_tokens=9,
            temperature=0.0,
            top_p=0.5,
            stop_sequences=("a", "b"),
            seed=0,
            presence_penalty=-1.0,
            frequency_penalty=1.0,
            reasoning_effort=ReasoningEffort.MINIMAL,
            top_logprobs=3,
        )
    )
    del sent["model"], sent["messages"]
    assert sent == {
        "max_completion_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["a", "b"],
        "seed": 0,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "reasoning_effort": "minimal",
        "logprobs": True,
        "top_logprobs": 3,
    }


def test_logprobs_without_alternatives() -> None:
    sent = body(generation=Generation(top_logprobs=0))
    assert (sent["logprobs"], "top_logprobs" in sent) == (True, False)


def test_compatible_servers_know_the_older_name_of_the_limit() -> None:
    sent = body(generation=Generation(max_output_tokens=9), dialect=COMPATIBLE)
    assert (sent["max_tokens"], "max_completion_tokens" in sent) == (9, False)


SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
TOOLS = (Tool("weather", "How it is outside", SCHEMA, strict=True), Tool("time"))


def test_tools() -> None:
    assert body(tools=TOOLS)["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "How it is outside",
                "parameters": json.loads(SCHEMA),
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "time"}},
    ]
    assert "tool_choice" not in body(tools=TOOLS)


@pytest.mark.parametrize("mode", list(ToolMode))
def test_tool_choice(mode: ToolMode) -> None:
    sent = body(tools=TOOLS, tool_choice=ToolChoice(mode, parallel=False))
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == (mode.value, False)


def test_a_choice_without_tools_is_not_sent() -> None:
    assert body(tool_choice=ToolChoice(ToolMode.AUTO, parallel=True)) == body()


def test_allowed_tools_are_named_where_the_server_knows_how() -> None:
    sent = body(tools=TOOLS, tool_choice=ToolChoice(ToolMode.REQUIRED, ("time",)))
    assert len(sent["tools"]) == 2
    assert sent["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
    }
    assert (
        body(tools=TOOLS, tool_choice=ToolChoice(None, ("time",)))["tool_choice"]["allowed_tools"]["mode"]
        == "auto"
    )
    assert body(tools=TOOLS, tool_choice=ToolChoice(ToolMode.NONE, ("time",)))["tool_choice"] == "none"


def test_elsewhere_only_the_allowed_tools_are_offered() -> None:
    sent = body(tools=TOOLS, tool_choice=ToolChoice(ToolMode.REQUIRED, ("time",)), dialect=COMPATIBLE)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["time"]
    assert sent["tool_choice"] == "required"


def test_response_formats() -> None:
    assert body(response_format=JsonObject())["response_format"] == {"type": "json_object"}
    assert body(response_format=JsonSchema("city", SCHEMA, strict=True))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "city", "schema": json.loads(SCHEMA), "strict": True},
    }
    unnamed = body(response_format=JsonSchema("", SCHEMA))["response_format"]["json_schema"]
    assert unnamed == {"name": "answer", "schema": json.loads(SCHEMA)}


@pytest.mark.parametrize("wanted", [Regex("a+"), Grammar('root ::= "a"'), Choice(("a",))])
def test_constraints_that_only_vllm_knows(wanted: Regex | Grammar | Choice) -> None:
    assert refused(response_format=wanted) == "unsupported_response_format"


def test_provider_options_are_merged_at_the_top_level() -> None:
    sent = body(options={"service_tier": "flex", "temperature": 2}, generation=Generation(temperature=0.1))
    assert (sent["service_tier"], sent["temperature"]) == ("flex", 2)


@pytest.mark.parametrize("name", sorted(REFUSED_OPTIONS))
def test_refused_options(name: str) -> None:
    assert refused(options={name: 1, "fine": 2}) == "provider_option_refused"
    assert refused_options([name, "fine"]) == (name,)


def test_what_is_not_json_is_the_callers_mistake() -> None:
    assert refused(options={"x": "\ud800"}) == "request_not_json"


def test_a_continuation_is_the_last_message() -> None:
    assert body(continuation="Once upon")["messages"][-1] == {"role": "assistant", "content": "Once upon"}


def test_the_body_is_compact_json() -> None:
    raw = chat_body(call(Message(Role.USER, (Text("é\n"),))), OPENAI, stream=False)
    assert raw == '{"model":"m","messages":[{"role":"user","content":"é\\n"}]}'.encode()
    assert msgspec.json.decode(raw) == json.loads(raw)
