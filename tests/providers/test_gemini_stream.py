import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.intake import assemble
from router_server.core.provider import UpstreamChat
from router_server.core.types import (
    ChatRequest,
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Report,
    StreamItem,
    Text,
    ToolCall,
    Usage,
)
from router_server.providers._gemini_request import chat_body
from router_server.providers._gemini_stream import StreamedAnswer, events_of
from router_server.providers._sse import EventParser
from tests.providers.gemini_chunks import (
    MODEL,
    OUR_USAGE,
    USAGE,
    call,
    chunk,
    deltas,
    failure,
    finish,
    parts,
    sealed,
    stream,
)


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


def test_an_unspecified_finish_reason_ends_nothing() -> None:
    items = stream(
        chunk({"text": "a"}, finish="FINISH_REASON_UNSPECIFIED"), chunk({"text": "b"}, finish="STOP")
    )

    assert parts(items) == (Text("ab"),)


def test_a_stream_without_a_finish_reason_is_not_whole() -> None:
    error = failure(chunk({"text": "x"}, usage={"promptTokenCount": 3}))

    assert (error.outcome, error.reason, error.usage) == (Outcome.MALFORMED, "no_finish_reason", Usage(3))


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
