"""What the arguments of a call become on the wire."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

import modelrouter
from modelrouter import (
    assistant,
    choice,
    developer,
    grammar,
    image,
    image_url,
    json_object,
    json_schema,
    regex,
    system,
    tool,
    tool_choice,
    tool_result,
    user,
)
from modelrouter.options import CHAT_FIELDS, EMBED_FIELDS, EmbedOptions, StreamOptions
from modelrouter.requests import chat_request, embed_request
from modelrouter.v1 import chat_pb2, common_pb2, embed_pb2

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0)


def test_every_option_reaches_its_field() -> None:
    options: StreamOptions = {
        "max_output_tokens": 10,
        "temperature": 0.0,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["a", "b"],
        "seed": 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "reasoning_effort": "low",
        "top_logprobs": 0,
        "tools": [tool("now")],
        "tool_choice": "required",
        "response_format": json_object(),
        "allowed_targets": ["x", "y"],
        "allow_failover": False,
        "first_token_timeout": 1.5,
        "stream_recovery": "resume",
        "priority": 2,
        "coalesce_window": 0.02,
        "allow_cache": True,
        "heartbeat_interval": 10,
        "labels": {"team": "a"},
        "user_id": "u",
        "idempotency_key": "i",
        "provider_options": {"openai": {"service_tier": "flex"}},
    }
    assert options.keys() == CHAT_FIELDS.keys() == StreamOptions.__annotations__.keys()

    assert chat_request("?", None, options) == chat_pb2.ChatRequest(
        model="chat",
        messages=[user("?")],
        generation=chat_pb2.GenerationConfig(
            max_output_tokens=10,
            temperature=0.0,
            top_p=0.9,
            top_k=5,
            stop_sequences=["a", "b"],
            seed=1,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            reasoning_effort=chat_pb2.REASONING_EFFORT_LOW,
            top_logprobs=0,
        ),
        tools=[tool("now")],
        tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_REQUIRED),
        response_format=json_object(),
        routing=common_pb2.RoutingOptions(
            allowed_targets=["x", "y"],
            allow_failover=False,
            first_token_timeout=Duration(seconds=1, nanos=500_000_000),
            stream_recovery=common_pb2.STREAM_RECOVERY_RESUME,
            priority=2,
            coalesce_window=Duration(nanos=20_000_000),
            allow_cache=True,
            heartbeat_interval=Duration(seconds=10),
        ),
        labels={"team": "a"},
        user_id="u",
        idempotency_key="i",
        provider_options_json={"openai": '{"service_tier": "flex"}'},
    )


def test_no_field_of_the_contract_is_out_of_reach() -> None:
    reached = {field.name for field in CHAT_FIELDS.values() if not field.parent}

    others = set(chat_pb2.ChatRequest.DESCRIPTOR.fields_by_name) - reached
    assert others == {"model", "messages", "generation", "routing"}
    reached = {field.name for field in EMBED_FIELDS.values() if not field.parent}
    others = set(embed_pb2.EmbedRequest.DESCRIPTOR.fields_by_name) - reached
    assert others == {"model", "inputs", "encoding", "routing"}


def test_an_embedding_asks_for_bytes() -> None:
    options: EmbedOptions = {"dimensions": 64, "task": "query", "priority": 1}

    assert embed_request(["a", "b"], "mine", options) == embed_pb2.EmbedRequest(
        model="mine",
        inputs=[{"text": "a"}, {"text": "b"}],
        dimensions=64,
        task=embed_pb2.EMBEDDING_TASK_QUERY,
        encoding=embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES,
        routing={"priority": 1},
    )
    whole = embed_pb2.EmbedRequest(inputs=[{"text": "a"}], encoding=embed_pb2.EMBEDDING_ENCODING_FLOAT32)
    assert embed_request(whole, None, {}).encoding == embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES
    assert embed_request("a", None, {}).model == "embed"


def test_none_leaves_an_option_to_the_server() -> None:
    assert chat_request("?", None, dict.fromkeys(CHAT_FIELDS)) == chat_request("?", None, {})


def test_a_single_word_is_a_list_of_one() -> None:
    request = chat_request("?", None, {"stop_sequences": "END", "allowed_targets": "local"})

    assert request.generation.stop_sequences == ["END"]
    assert request.routing.allowed_targets == ["local"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temprature": 1}, r"no option 'temprature'; did you mean 'temperature'\?"),
        ({"xyzzy": 1}, "no option 'xyzzy'$"),
        ({"temperature": "hot"}, "^temperature: "),
        ({"reasoning_effort": "max"}, "reasoning_effort: 'max' is none of none, minimal, low, medium, high"),
        ({"stream_recovery": "retry"}, "'retry' is none of none, restart, resume"),
        ({"tool_choice": "maybe"}, "'maybe' is none of auto, none, required"),
        ({"tools": ["now"]}, "^tools: "),
        ({"max_output_tokens": 2**40}, "^max_output_tokens: "),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        chat_request("?", None, options)


def test_a_turn_of_the_wrong_kind_is_named() -> None:
    wrong: Any = [user("?"), {"role": "user", "content": "?"}]

    with pytest.raises(TypeError, match=r"messages\[1\] is a dict; make each turn with user\(\)"):
        chat_request(wrong, None, {})


def test_each_speaker_has_a_role() -> None:
    assert [turn(" ").role for turn in (system, developer, user, assistant)] == [
        chat_pb2.ROLE_SYSTEM,
        chat_pb2.ROLE_DEVELOPER,
        chat_pb2.ROLE_USER,
        chat_pb2.ROLE_ASSISTANT,
    ]


def test_a_tool_result_answers_its_call() -> None:
    turn = tool_result("c1", "no such city", is_error=True)

    assert turn.role == chat_pb2.ROLE_TOOL
    assert turn.content[0].tool_result == chat_pb2.ToolResult(
        tool_call_id="c1", content=[{"text": "no such city"}], is_error=True
    )


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
    ],
)
def test_an_images_kind_is_told_by_its_bytes(data: bytes, mime_type: str) -> None:
    turn = user("What is this?", image(data, detail="high"))

    assert turn.content[1].inline_data == chat_pb2.Blob(
        mime_type=mime_type, data=data, detail=chat_pb2.MEDIA_DETAIL_HIGH
    )


def test_an_image_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "cat.svg").write_bytes(b"<svg/>")

    assert image(tmp_path / "cat.png").inline_data.filename == "cat.png"
    assert image(str(tmp_path / "cat.svg")).inline_data.mime_type == "image/svg+xml"


def test_an_image_of_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="give mime_type="):
        image(b"????")

    assert image(b"????", mime_type="image/x").inline_data.mime_type == "image/x"


def test_an_image_can_be_elsewhere() -> None:
    part = image_url("https://example.org/cat.png", detail="low")

    assert part.file == chat_pb2.FileRef(uri="https://example.org/cat.png", detail=chat_pb2.MEDIA_DETAIL_LOW)


def test_a_detail_that_does_not_exist_is_refused() -> None:
    wrong: Any = "medium"

    with pytest.raises(ValueError, match="'medium' is none of low, high"):
        image_url("https://example.org/cat.png", detail=wrong)


class Weather:
    """Looks like a pydantic model to those who ask for a schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema", [Weather, Weather.model_json_schema(), json.dumps(Weather.model_json_schema())]
)
def test_a_schema_comes_as_mapping_text_or_class(schema: Any) -> None:
    function = tool("weather", "Look out.", schema, strict=True).function
    wanted = json_schema("weather", schema).json_schema

    assert json.loads(function.parameters_json_schema) == Weather.model_json_schema()
    assert (function.name, function.description, function.strict) == ("weather", "Look out.", True)
    assert json.loads(wanted.schema_json) == Weather.model_json_schema()
    assert (wanted.name, wanted.strict) == ("weather", True)


def test_tool_choice_says_mode_names_and_parallelism() -> None:
    assert tool_choice("required", "weather", "now", parallel=False) == chat_pb2.ToolChoice(
        mode=chat_pb2.ToolChoice.MODE_REQUIRED, allowed_tool_names=["weather", "now"], parallel=False
    )
    assert tool_choice() == chat_pb2.ToolChoice()


def test_the_other_formats() -> None:
    assert regex("a+").regex == "a+"
    assert grammar("root ::= 'a'").grammar == "root ::= 'a'"
    assert choice("yes", "no").choice.choices == ["yes", "no"]
    assert json_object().HasField("json_object")


def test_everything_announced_exists() -> None:
    assert all(hasattr(modelrouter, name) for name in modelrouter.__all__)
