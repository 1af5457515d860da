"""Answers of the core, as messages of the contract."""

from __future__ import annotations

from typing import Any

import pytest

from modelrouter.v1 import chat_pb2, common_pb2, models_pb2
from router_server.core.errors import AttemptSummary, Outcome
from router_server.core.results import (
    ChatResult,
    Finished,
    Heartbeat,
    ModelInfo,
    Reset,
    Started,
    Trail,
)
from router_server.core.types import (
    Answer,
    Blob,
    Delta,
    DeltaKind,
    FileRef,
    FinishReason,
    MediaDetail,
    Message,
    Operation,
    Reasoning,
    Refusal,
    Role,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
)
from router_server.rpc.convert.answers import write_chat, write_event, write_models
from router_server.rpc.convert.chat import read_chat
from tests.rpc.scripted import ScriptedRouter, chat_request, serving

USAGE = Usage(1, 2, 3, 4, 5, 0, estimated=True)
ATTEMPTS = (
    AttemptSummary("gpt", "openai", Outcome.RATE_LIMITED, 0.25, None, "http_429", Usage(7)),
    AttemptSummary("flash", "gemini", None, 1.5, 0.125),
)
TRAIL = Trail("chat", "flash", "gemini", "gemini-2.5", ATTEMPTS, cache_hit=True, reported_model="g-002")


def check_trail(route: common_pb2.RouteInfo) -> None:
    assert (route.route, route.target, route.provider, route.upstream_model) == (
        "chat",
        "flash",
        "gemini",
        "gemini-2.5",
    )
    assert (route.cache_hit, route.reported_model) == (True, "g-002")
    first, second = route.attempts
    assert (first.target, first.outcome, first.error_reason) == (
        "gpt",
        common_pb2.Attempt.OUTCOME_RATE_LIMITED,
        "http_429",
    )
    assert first.duration.ToMilliseconds() == 250
    assert not first.HasField("time_to_first_token")
    assert first.usage.input_tokens == 7
    assert second.outcome == common_pb2.Attempt.OUTCOME_UNSPECIFIED  # still open
    assert second.time_to_first_token.ToMilliseconds() == 125
    assert not second.HasField("usage")


def check_usage(usage: common_pb2.Usage) -> None:
    assert usage == common_pb2.Usage(
        input_tokens=1,
        output_tokens=2,
        cache_read_input_tokens=3,
        cache_write_input_tokens=4,
        reasoning_output_tokens=5,
        cost_nano_usd=0,
        estimated=True,
    )


def test_a_chat_answer() -> None:
    parts = (
        Text("hi", b"s"),
        Reasoning(""),
        Refusal("no"),
        ToolCall("1", "f", "{}"),
        Blob("image/png", b"x", "a.png", MediaDetail.HIGH),
        FileRef("image/png", "https://x"),
        ToolResult("1", (Text("ok"),), is_error=True),
    )
    logprob = TokenLogprob("a", -0.5, b"a", (TokenLogprob("b", -1.0),))
    answer = Answer(Message(Role.ASSISTANT, parts), FinishReason.TOOL_CALLS, None, "", (logprob,))
    response = write_chat(ChatResult("id", "chat", answer, USAGE, TRAIL))
    assert (response.id, response.model) == ("id", "chat")
    assert response.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
    assert response.message == chat_pb2.Message(
        role=chat_pb2.ROLE_ASSISTANT,
        content=[
            chat_pb2.ContentPart(text="hi", opaque_state=b"s"),
            chat_pb2.ContentPart(reasoning=chat_pb2.Reasoning()),
            chat_pb2.ContentPart(refusal="no"),
            chat_pb2.ContentPart(tool_call=chat_pb2.ToolCall(id="1", name="f", arguments_json="{}")),
            chat_pb2.ContentPart(
                inline_data=chat_pb2.Blob(
                    mime_type="image/png", data=b"x", filename="a.png", detail=chat_pb2.MEDIA_DETAIL_HIGH
                )
            ),
            chat_pb2.ContentPart(file=chat_pb2.FileRef(mime_type="image/png", uri="https://x")),
            chat_pb2.ContentPart(
                tool_result=chat_pb2.ToolResult(
                    tool_call_id="1", content=[chat_pb2.ContentPart(text="ok")], is_error=True
                )
            ),
        ],
    )
    assert response.logprobs[0].top[0].token == "b"
    check_usage(response.usage)
    check_trail(response.route)


@pytest.mark.parametrize(
    ("delta", "written"),
    [
        (Delta(0, DeltaKind.TEXT, "a"), {"text": "a"}),
        (Delta(1, DeltaKind.TEXT, ""), {"part_index": 1, "text": ""}),
        (Delta(2, DeltaKind.REASONING, "r"), {"part_index": 2, "reasoning": "r"}),
        (Delta(0, DeltaKind.REFUSAL, "no"), {"refusal": "no"}),
        (
            Delta(3, DeltaKind.TOOL_CALL, '{"a', "1", "f"),
            {"part_index": 3, "tool_call": {"id": "1", "name": "f", "arguments_json_fragment": '{"a'}},
        ),
        (Delta(3, DeltaKind.TOOL_CALL), {"part_index": 3, "tool_call": {}}),
        (Delta(0, DeltaKind.TEXT, "", opaque_state=b"s"), {"text": "", "opaque_state": b"s"}),
        (
            Delta(0, DeltaKind.TEXT, "a", logprobs=(TokenLogprob("a", -0.5),)),
            {"text": "a", "logprobs": [{"token": "a", "logprob": -0.5}]},
        ),
    ],
)
def test_a_delta(delta: Delta, written: dict[str, Any]) -> None:
    assert write_event(delta) == chat_pb2.StreamChatResponse(delta=chat_pb2.ContentDelta(**written))


def test_the_other_events() -> None:
    started = write_event(Started("id", "chat", TRAIL)).started
    assert (started.id, started.model) == ("id", "chat")
    check_trail(started.route)
    reset = write_event(Reset("timeout", TRAIL, resumed=True)).reset
    assert (reset.reason, reset.resumed) == ("timeout", True)
    check_trail(reset.route)
    finished = write_event(Finished(FinishReason.LENGTH, USAGE, TRAIL)).finished
    assert finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH
    check_usage(finished.usage)
    check_trail(finished.route)
    assert write_event(Heartbeat()).WhichOneof("event") == "heartbeat"


def test_the_reported_model_is_told_only_where_it_differs() -> None:
    same = Trail("chat", "gpt", "openai", "gpt-4o", reported_model="gpt-4o")
    assert write_event(Started("id", "chat", same)).started.route.reported_model == ""


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_its_name_in_the_contract(outcome: Outcome) -> None:
    trail = Trail("r", "t", "p", "m", (AttemptSummary("t", "p", outcome),))
    told = write_event(Started("id", "r", trail)).started.route.attempts[0].outcome
    assert common_pb2.Attempt.Outcome.Name(told) == f"OUTCOME_{outcome.name}"


@pytest.mark.parametrize("reason", FinishReason)
def test_every_finish_reason_has_its_name_in_the_contract(reason: FinishReason) -> None:
    told = write_event(Finished(reason, Usage(), TRAIL)).finished.finish_reason
    assert chat_pb2.FinishReason.Name(told) == f"FINISH_REASON_{reason.name}"


def test_an_answer_can_be_sent_back_as_history() -> None:
    parts = (Reasoning("hm", b"sealed"), Text("hi"), ToolCall("1", "f", "{}", b"sealed"))
    answer = Answer(Message(Role.ASSISTANT, parts), FinishReason.TOOL_CALLS, None)
    response = write_chat(ChatResult("id", "chat", answer, USAGE, TRAIL))
    request = chat_request()
    request.messages.append(response.message)
    assert read_chat(request).messages[1] == answer.message


async def test_models_are_listed() -> None:
    listed = (
        ModelInfo("chat", (Operation.CHAT, Operation.STREAM), ("gpt", "flash"), available=True),
        ModelInfo("embed", (Operation.EMBED,), (), available=False),
    )
    async with serving(ScriptedRouter(listed=listed)) as it:
        answer = await it.stub.ListModels(models_pb2.ListModelsRequest())
    assert answer == write_models(listed)
    chat, embed = answer.models
    assert (chat.name, list(chat.operations), list(chat.targets), chat.available) == (
        "chat",
        [models_pb2.Model.OPERATION_CHAT],
        ["gpt", "flash"],
        True,
    )
    assert (list(embed.operations), embed.available) == ([models_pb2.Model.OPERATION_EMBED], False)


async def test_a_stream_arrives_in_the_order_and_under_the_id_of_its_call() -> None:
    async with serving() as it:
        events = [event async for event in it.stub.StreamChat(chat_request())]
        assert [event.WhichOneof("event") for event in events] == ["started", *["delta"] * 3, "finished"]
        assert "".join(event.delta.text for event in events) == "one two three"
        assert events[0].started.id == it.router.calls[0].call_id
