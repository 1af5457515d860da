import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal, unseal
from router_server.core.provider import UpstreamChat
from router_server.core.stream import assemble
from router_server.core.types import (
    Answer,
    Blob,
    ChatRequest,
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Part,
    Reasoning,
    Report,
    StreamItem,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from router_server.providers._gemini_answer import read_answer
from router_server.providers._gemini_request import chat_body
from router_server.providers._gemini_stream import StreamedAnswer, events_of
from router_server.providers._sse import EventParser

MODEL = "gemini-3.1-pro-preview"


def chunk(*parts: Any, finish: str = "", usage: Any = None, **rest: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    candidate.update({name: rest.pop(name) for name in ("logprobsResult",) if name in rest})
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {}), **rest}


def call(name: str, arguments: Any = None, identity: str = "") -> dict[str, Any]:
    function = {"name": name, **({"id": identity} if identity else {})}
    return {"functionCall": function if arguments is None else {**function, "args": arguments}}


def read(value: Any) -> Answer:
    return read_answer(json.dumps(value).encode(), MODEL, 60.0)


def stream(*chunks: Any) -> list[StreamItem]:
    answer = StreamedAnswer(MODEL, 60.0)
    items = [item for one in chunks for item in answer.take([json.dumps(one).encode()])]
    answer.end()
    return items


def deltas(items: Sequence[StreamItem]) -> list[Delta]:
    return [item for item in items if isinstance(item, Delta)]


def parts(items: Sequence[StreamItem]) -> tuple[Part, ...]:
    return assemble(deltas(items)).content


def finish(items: Sequence[StreamItem]) -> FinishReason:
    [reason] = [item.reason for item in items if isinstance(item, Finish)]
    return reason


def failure(*chunks: Any, unary: bool = False) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        _ = read(chunks[0]) if unary else stream(*chunks)
    return caught.value


def sealed(signature: str) -> bytes:
    return seal("gemini", MODEL, signature.encode())


USAGE = {
    "promptTokenCount": 10,
    "cachedContentTokenCount": 4,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 25,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
}
OUR_USAGE = Usage(13, 12, cache_read_input_tokens=4, reasoning_output_tokens=7)


def test_a_whole_answer() -> None:
    answer = read(
        chunk(
            {"text": "Hm.", "thought": True},
            {"text": "So", "thoughtSignature": "A=="},
            call("f", {"b": [1.50, None]}, "id-1") | {"thoughtSignature": "B=="},
            {"inlineData": {"mimeType": "image/png", "data": "AP8="}},
            {"executableCode": {"language": "PYTHON", "code": "1"}},
            {"text": ""},
            finish="STOP",
            usage=USAGE,
            modelVersion="gemini-3.1-pro-002",
            responseId="r",
        )
    )

    assert answer.message.content == (
        Reasoning("Hm."),
        Text("So", sealed("A==")),
        ToolCall("id-1", "f", '{"b":[1.5,null]}', sealed("B==")),
        Blob("image/png", b"\x00\xff"),
    )
    assert (answer.finish_reason, answer.usage) == (FinishReason.TOOL_CALLS, OUR_USAGE)
    assert answer.reported_model == "gemini-3.1-pro-002"


def test_arguments_keep_the_models_own_numbers_and_lose_its_layout() -> None:
    body = b"""{"candidates": [{"finishReason": "STOP", "content": {"parts": [{"functionCall": {
        "name": "f",
        "args": {
            "a": 12345678901234567890123,
            "b": 1.50
        }
    }}]}}]}"""

    [part] = read_answer(body, MODEL, 60.0).message.content

    assert isinstance(part, ToolCall)
    assert part.arguments_json == '{"a":12345678901234567890123,"b":1.50}'


@pytest.mark.parametrize("arguments", [{}, {"args": None}, {"args": {}}])
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    [part] = read(chunk({"functionCall": {"name": "f", **arguments}}, finish="STOP")).message.content

    assert isinstance(part, ToolCall)
    assert part.arguments_json == "{}"


def test_calls_without_an_id_get_one_each() -> None:
    found = [
        *read(chunk(call("f"), call("f"), finish="STOP")).message.content,
        *parts(stream(chunk(call("f")), chunk(call("f"), finish="STOP"))),
    ]
    identities = {part.id for part in found if isinstance(part, ToolCall)}

    assert len(identities) == 4
    assert all(0 < len(identity) <= 40 for identity in identities)  # the longest that OpenAI takes


def test_text_goes_on_in_its_part_until_the_kind_changes() -> None:
    items = stream(
        chunk({"text": "Let ", "thought": True}),
        chunk({"text": "me see.", "thought": True}, {"text": "It "}),
        chunk({"text": "is"}),
        chunk(call("f", {"a": 1}, "x")),
        chunk({"text": " so."}, finish="STOP"),
    )

    assert [(delta.part_index, delta.kind, delta.text) for delta in deltas(items)] == [
        (0, DeltaKind.REASONING, "Let "),
        (0, DeltaKind.REASONING, "me see."),
        (1, DeltaKind.TEXT, "It "),
        (1, DeltaKind.TEXT, "is"),
        (2, DeltaKind.TOOL_CALL, '{"a":1}'),
        (3, DeltaKind.TEXT, " so."),
    ]
    assert parts(items)[2] == ToolCall("x", "f", '{"a":1}')
    assert finish(items) is FinishReason.TOOL_CALLS


def test_a_signature_keeps_its_part_to_itself() -> None:
    items = stream(
        chunk({"text": "a"}),
        chunk({"text": "b", "thoughtSignature": "B=="}),
        chunk({"text": "c"}),
        chunk({"text": "d"}),
        chunk({"text": "", "thoughtSignature": "E=="}, finish="STOP"),
    )

    assert parts(items) == (Text("a"), Text("b", sealed("B==")), Text("cd"), Text("", sealed("E==")))


def test_what_a_stream_brought_goes_back_as_it_came() -> None:
    came = [
        {"text": "Hm.", "thought": True, "thoughtSignature": "A=="},
        {"text": "So."},
        {"functionCall": {"id": "1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "B=="},
        {"functionCall": {"id": "2", "name": "g", "args": {}}},
        {"text": "", "thoughtSignature": "C=="},
    ]
    message = assemble(deltas(stream(*(chunk(part) for part in came[:-1]), chunk(came[-1], finish="STOP"))))

    body = json.loads(chat_body(UpstreamChat(MODEL, ChatRequest("route", (message,)))))

    assert body["contents"] == [{"role": "model", "parts": came}]


def test_the_signature_is_sealed_with_the_model_that_gave_it() -> None:
    [part] = read(chunk({"text": "x", "thoughtSignature": "A=="}, finish="STOP")).message.content
    envelope = unseal(part.opaque_state)

    assert envelope is not None
    assert (envelope.kind, envelope.model, envelope.payload) == ("gemini", MODEL, b"A==")


def test_usage_and_model_are_reported_when_they_are_news() -> None:
    first = {"promptTokenCount": 10}
    items = stream(
        chunk({"text": "a"}, usage=first, modelVersion="v"),
        chunk({"text": "b"}, usage=first, modelVersion="v"),
        chunk({"text": "c"}, finish="STOP", usage=USAGE, modelVersion="v"),
    )

    assert [item for item in items if isinstance(item, Report)] == [
        Report(Usage(10), "v"),
        Report(OUR_USAGE),
    ]
    assert items[-2:] == [Finish(FinishReason.STOP), Report(OUR_USAGE)]


def test_one_read_of_many_events_makes_one_report_after_the_rest() -> None:
    answer = StreamedAnswer(MODEL, 60.0)
    events = [
        json.dumps(one).encode()
        for one in (
            chunk({"text": "a"}, usage={"promptTokenCount": 1}, modelVersion="v"),
            chunk({"text": "b"}, finish="STOP", usage={"promptTokenCount": 1, "candidatesTokenCount": 2}),
            chunk({"text": "not ours any more"}),
        )
    ]

    assert answer.take(events) == [
        Delta(0, DeltaKind.TEXT, "a"),
        Delta(0, DeltaKind.TEXT, "b"),
        Finish(FinishReason.STOP),
        Report(Usage(1, 2), "v"),
    ]


def test_log_probabilities_come_with_the_text() -> None:
    result = {
        "chosenCandidates": [
            {"token": "So", "tokenId": 1, "logProbability": -0.5},
            {"token": "!", "logProbability": -0.1},
        ],
        "topCandidates": [{"candidates": [{"token": "So", "logProbability": -0.5}, {"token": "No"}]}],
    }
    said = chunk({"text": "So!"}, finish="STOP", logprobsResult=result)
    expected = (
        TokenLogprob("So", -0.5, top=(TokenLogprob("So", -0.5), TokenLogprob("No", 0.0))),
        TokenLogprob("!", -0.1),
    )

    assert read(said).logprobs == expected
    assert deltas(stream(said)) == [Delta(0, DeltaKind.TEXT, "So!", logprobs=expected)]
    assert (
        deltas(stream(chunk(call("f", identity="1"), finish="STOP", logprobsResult=result)))[0].logprobs == ()
    )


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
        ("BLOCKLIST", FinishReason.CONTENT_FILTER),
        ("SPII", FinishReason.CONTENT_FILTER),
        ("MALFORMED_FUNCTION_CALL", FinishReason.OTHER),
        ("LANGUAGE", FinishReason.OTHER),
        ("OTHER", FinishReason.OTHER),
        ("SOMETHING_NEW", FinishReason.OTHER),
    ],
)
def test_why_an_answer_with_content_ended(word: str, reason: FinishReason) -> None:
    assert read(chunk({"text": "x"}, finish=word)).finish_reason is reason
    assert finish(stream(chunk({"text": "x"}), {"candidates": [{"finishReason": word}]})) is reason
    assert finish(stream(chunk({"text": "x"}, finish=word))) is reason


@pytest.mark.parametrize("unary", [True, False])
@pytest.mark.parametrize(
    ("word", "outcome", "token", "blameless"),
    [
        ("SAFETY", Outcome.CONTENT_FILTER, "finish_safety", False),
        ("RECITATION", Outcome.CONTENT_FILTER, "finish_recitation", False),
        ("IMAGE_SAFETY", Outcome.CONTENT_FILTER, "finish_image_safety", False),
        ("MALFORMED_FUNCTION_CALL", Outcome.MALFORMED, "finish_malformed_function_call", True),
        ("UNEXPECTED_TOOL_CALL", Outcome.MALFORMED, "finish_unexpected_tool_call", True),
        ("MISSING_THOUGHT_SIGNATURE", Outcome.INVALID_REQUEST, "missing_thought_signature", False),
    ],
)
def test_an_answer_that_came_to_nothing_is_a_failure(
    word: str, outcome: Outcome, token: str, *, blameless: bool, unary: bool
) -> None:
    error = failure({"candidates": [{"finishReason": word}], "usageMetadata": USAGE}, unary=unary)

    assert (error.outcome, error.reason, error.blameless) == (outcome, token, blameless)
    assert error.usage == OUR_USAGE


@pytest.mark.parametrize("word", ["STOP", "MAX_TOKENS", "OTHER", "SOMETHING_NEW"])
def test_an_empty_answer_may_be_an_answer(word: str) -> None:
    assert read({"candidates": [{"finishReason": word}]}).message.content == ()


@pytest.mark.parametrize("unary", [True, False])
def test_a_blocked_prompt_is_a_failure(*, unary: bool) -> None:
    said = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}
    error = failure(said, unary=unary)

    assert (error.outcome, error.reason) == (Outcome.CONTENT_FILTER, "prompt_blocked")
    assert error.usage == Usage(3)


def test_a_block_after_content_is_a_finish_reason() -> None:
    items = stream(chunk({"text": "x"}), {"promptFeedback": {"blockReason": "SAFETY"}})

    assert finish(items) is FinishReason.CONTENT_FILTER


def test_feedback_that_blocks_nothing_says_nothing() -> None:
    said = chunk({"text": "x"}, finish="STOP", promptFeedback={"safetyRatings": []})

    assert read(said).finish_reason is FinishReason.STOP


def test_a_stream_without_a_finish_reason_is_not_whole() -> None:
    error = failure(chunk({"text": "x"}, usage={"promptTokenCount": 3}))

    assert (error.outcome, error.reason, error.usage) == (Outcome.MALFORMED, "no_finish_reason", Usage(3))


@pytest.mark.parametrize(
    ("said", "token"),
    [
        ({}, "no_candidates"),
        ({"candidates": []}, "no_candidates"),
        (chunk({"text": "x"}), "no_finish_reason"),
        ({"candidates": 3}, "wrong_shape"),
        ([], "wrong_shape"),
        (chunk({"text": 3}, finish="STOP"), "wrong_shape"),
        (chunk({"functionCall": {"args": {}}}, finish="STOP"), "wrong_shape"),
        (chunk(call("f", [1]), finish="STOP"), "wrong_shape"),
        (chunk({"inlineData": {"data": "***"}}, finish="STOP"), "wrong_shape"),
    ],
)
def test_a_whole_answer_of_the_wrong_shape(said: Any, token: str) -> None:
    error = failure(said, unary=True)

    assert (error.outcome, error.reason) == (Outcome.MALFORMED, token)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"candidates"', b'{"modelVersion": "\xff"}'])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="malformed: not_json"):
        read_answer(body, MODEL, 60.0)
    with pytest.raises(UpstreamError, match="malformed: not_json"):
        StreamedAnswer(MODEL, 60.0).take([body])


@pytest.mark.parametrize(
    ("error", "outcome", "retry_after"),
    [
        ({"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}, Outcome.UNAVAILABLE, None),
        (
            {"code": 429, "details": [{"@type": "t/google.rpc.RetryInfo", "retryDelay": "99.5s"}]},
            Outcome.RATE_LIMITED,
            60.0,
        ),
        ({"code": 400, "message": "exceeds the maximum number of tokens"}, Outcome.CONTEXT_LENGTH, None),
        ({"code": 0}, Outcome.MALFORMED, None),
        ({"message": "?"}, Outcome.MALFORMED, None),
        ("?", Outcome.MALFORMED, None),
    ],
)
def test_an_error_inside_an_answer_is_classed_by_its_code(
    error: Any, outcome: Outcome, retry_after: float | None
) -> None:
    for found in (failure({"error": error}, unary=True), failure(chunk({"text": "x"}), {"error": error})):
        assert (found.outcome, found.retry_after) == (outcome, retry_after)


def test_media_have_no_place_in_a_stream() -> None:
    error = failure(chunk({"inlineData": {"mimeType": "image/png", "data": ""}}, finish="STOP"))

    assert (error.outcome, error.reason) == (Outcome.INVALID_REQUEST, "media_in_stream")


def test_null_and_unknown_fields_are_nothing() -> None:
    said = {
        "candidates": [
            {"index": 1, "content": {"parts": [{"text": "not ours"}]}},
            {"content": None, "finishReason": None, "logprobsResult": None, "citationMetadata": {}},
        ],
        "promptFeedback": None,
        "usageMetadata": None,
        "modelVersion": None,
        "error": None,
        "new": [1],
    }

    assert stream(said, chunk({"text": "x", "thought": None, "functionCall": None}, finish="STOP")) == [
        Delta(0, DeltaKind.TEXT, "x"),
        Finish(FinishReason.STOP),
    ]


def test_a_stream_may_come_as_one_document() -> None:
    chunks = [chunk({"text": "a"}), chunk({"text": "b"}, finish="STOP")]

    assert [json.loads(event) for event in events_of(json.dumps(chunks).encode())] == chunks
    assert events_of(b'{"error": {}}') == [b'{"error": {}}']
    with pytest.raises(UpstreamError, match="not_json"):
        events_of(b'[{"candidates"')


WIRE_PARTS = st.one_of(
    st.fixed_dictionaries(
        {"text": st.text(max_size=8)},
        optional={"thought": st.booleans(), "thoughtSignature": st.just("U2ln")},
    ),
    st.builds(
        lambda arguments, identity: call("f", arguments, identity),
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2),
        st.uuids().map(str),
    ),
)


@given(
    spoken=st.lists(st.lists(WIRE_PARTS, max_size=3), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_however_the_bytes_are_cut_the_answer_is_the_same(spoken: Any, cuts: list[int]) -> None:
    events = [chunk(*said, usage={"promptTokenCount": 1}) for said in spoken]
    events.append(chunk(finish="STOP", usage={"promptTokenCount": 1, "candidatesTokenCount": 2}))
    wire = b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})

    answer, parser = StreamedAnswer(MODEL, 60.0), EventParser()
    items: list[StreamItem] = []
    for begin, end in pairwise(edges):
        items.extend(answer.take(parser.feed(wire[begin:end])))
    answer.end()

    whole = stream(*events)
    assert (parts(items), finish(items)) == (parts(whole), finish(whole))
    assert [item for item in items if isinstance(item, Report)][-1].usage == Usage(1, 2)
    _check_parts(deltas(items))


def _check_parts(found: Sequence[Delta]) -> None:
    """Part indexes count up from 0, and no part changes its kind or goes on after a signature."""
    last = -1
    kinds: dict[int, DeltaKind] = {}
    closed: set[int] = set()
    for delta in found:
        assert last <= delta.part_index <= last + 1
        assert kinds.setdefault(delta.part_index, delta.kind) is delta.kind
        assert delta.part_index not in closed
        last = delta.part_index
        if delta.opaque_state or delta.kind is DeltaKind.TOOL_CALL:
            closed.add(last)
