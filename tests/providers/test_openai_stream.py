"""The stream of the OpenAI shape, without a socket: what its chunks become."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import Delta, DeltaKind, Finish, FinishReason, Report, StreamItem, TokenLogprob
from router_server.providers._openai_wire_stream import StreamedAnswer
from router_server.providers._sse import EventParser
from tests.providers.openai_talk import (
    USAGE,
    USAGE_CHUNK,
    Assembled,
    assemble,
    chunk_of,
    encoded,
    failure,
    read,
    text_chunks,
    tool_chunk,
)

TEXT, REASONING, TOOL, REFUSAL = (
    DeltaKind.TEXT,
    DeltaKind.REASONING,
    DeltaKind.TOOL_CALL,
    DeltaKind.REFUSAL,
)


def test_one_read_becomes_one_delta() -> None:
    answer = StreamedAnswer()
    items = answer.take([*encoded(*text_chunks("Hel", "lo", "!"), USAGE_CHUNK), b"[DONE]"])
    assert items == [Delta(0, TEXT, "Hello!"), Finish(FinishReason.STOP), Report(USAGE, "m-1")]
    assert (answer.finished, answer.done) == (True, True)


def test_a_read_that_only_names_a_role_tells_that_the_upstream_is_alive() -> None:
    answer = StreamedAnswer()
    role = chunk_of({"role": "assistant", "content": ""})
    assert answer.take(encoded(role)) == [Report(model="m-1")]
    assert answer.take(encoded(role)) == []


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_under_either_name(name: str) -> None:
    whole = read(chunk_of({name: "Let me "}), chunk_of({name: "think."}), *text_chunks("4"))
    assert whole.parts == [(REASONING, "Let me think.", "", ""), (TEXT, "4", "", "")]


def test_reasoning_under_both_names_is_taken_once() -> None:
    whole = read(chunk_of({"reasoning": "a", "reasoning_content": "a"}), *text_chunks("b"))
    assert whole.parts[0] == (REASONING, "a", "", "")


def test_a_part_is_resumed_after_another() -> None:
    whole = read(chunk_of({"reasoning": "a"}), chunk_of({"content": "x"}), chunk_of({"reasoning": "b"}),
                 *text_chunks("y"))  # fmt: skip
    assert whole.parts == [(REASONING, "ab", "", ""), (TEXT, "xy", "", "")]


def test_refusal() -> None:
    whole = read(chunk_of({"refusal": "I can"}), chunk_of({"refusal": "not."}), chunk_of(finish="stop"))
    assert whole.parts == [(REFUSAL, "I cannot.", "", "")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos_of_some_kind", FinishReason.OTHER),
    ],
)
def test_finish_reasons(word: str, reason: FinishReason) -> None:
    assert read(*text_chunks("a", finish=word)).finish is reason


@pytest.mark.parametrize("word", ["abort", "error"])
def test_an_answer_that_the_server_broke_off_is_a_failure(word: str) -> None:
    error = failure(*text_chunks("a", finish=word))
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "upstream_aborted")


def test_an_empty_finish_reason_is_none() -> None:
    assert read(chunk_of({"content": "a"}, finish=""), *text_chunks("b")).parts == [(TEXT, "ab", "", "")]


A = {"id": "call_a", "type": "function", "name": "weather"}


B = {"id": "call_b", "type": "function", "name": "time"}


BOTH = [(TOOL, '{"city":"Rome"}', "call_a", "weather"), (TOOL, '{"zone":1}', "call_b", "time")]


END = chunk_of(finish="tool_calls")


def test_usage_in_every_chunk() -> None:
    counts = [{"prompt_tokens": 9, "completion_tokens": n} for n in (0, 1, 2)]
    whole = read(*(chunk_of({"content": "a"}, usage=count) for count in counts), chunk_of(finish="stop"))
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (9, 2)


def test_usage_with_the_finish_reason_and_null_details() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None,
             "completion_tokens_details": {"reasoning_tokens": None}}  # fmt: skip
    whole = read(chunk_of({"content": "a"}, finish="stop", usage=usage))
    assert whole.usage is not None
    assert (whole.usage.output_tokens, whole.usage.reasoning_output_tokens) == (2, 0)


def test_logprobs() -> None:
    tokens = [
        {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": [
            {"token": "Hi", "logprob": -0.25, "bytes": [72, 105]},
            {"token": "Yo", "logprob": -2, "bytes": None}]},
        {"token": "\ufffd", "logprob": -1.5, "bytes": [240, 159], "top_logprobs": []},
    ]  # fmt: skip
    answer = StreamedAnswer()
    items = answer.take(encoded(chunk_of({"content": "Hi"}, logprobs={"content": tokens, "refusal": None})))
    assert items[0] == Delta(
        0,
        TEXT,
        "Hi",
        logprobs=(
            TokenLogprob("Hi", -0.25, b"", (TokenLogprob("Hi", -0.25), TokenLogprob("Yo", -2.0))),
            TokenLogprob("\ufffd", -1.5, b"\xf0\x9f"),
        ),
    )


def test_only_the_first_choice_counts() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    assert read(other, *text_chunks("yes")).parts == [(TEXT, "yes", "", "")]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b'{"choices": [{"delta": {"cont', "not_json"),
        (b"Internal Server Error", "not_json"),
        (b"", "not_json"),
        (b'{"choices": [{"delta": {"content": "\xff"}}]}', "not_json"),
        (b"[]", "wrong_shape"),
        (b'"text"', "wrong_shape"),
        (b'{"choices": {}}', "wrong_shape"),
        (b'{"choices": [{"delta": {"content": 1}}]}', "wrong_shape"),
    ],
)
def test_chunks_that_are_none(event: bytes, reason: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        StreamedAnswer().take([*encoded(*text_chunks("a")[:-1]), event])
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, reason)
    assert caught.value.__cause__ is None


def test_the_end_without_a_finish_reason_is_malformed() -> None:
    error = failure(*text_chunks("a")[:-1])
    assert (error.outcome, error.reason) == (Outcome.MALFORMED, "no_finish_reason")


def test_done_without_a_finish_reason_is_malformed() -> None:
    answer = StreamedAnswer()
    answer.take([*encoded(chunk_of({"content": "a"})), b"[DONE]"])
    with pytest.raises(UpstreamError, match="no_finish_reason"):
        answer.end()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ({"message": "THEIR WORDS", "type": "server_error", "code": None}, Outcome.UNAVAILABLE),
        ({"message": "THEIR WORDS", "type": "InternalServerError", "code": 500}, Outcome.UNAVAILABLE),
        ({"message": "THEIR WORDS", "type": "requests", "code": "rate_limit_exceeded"}, Outcome.RATE_LIMITED),
        ({"message": "THEIR WORDS", "code": 429}, Outcome.RATE_LIMITED),
        ({"message": "THEIR WORDS", "code": "429"}, Outcome.RATE_LIMITED),
        ({"message": "THEIR WORDS", "code": 502, "metadata": {"provider": "y"}}, Outcome.UNAVAILABLE),
        ({"message": "THEIR WORDS", "type": "BadRequestError", "code": 400}, Outcome.INVALID_REQUEST),
        (
            {"message": "THEIR WORDS", "type": "insufficient_quota", "code": "insufficient_quota"},
            Outcome.AUTH,
        ),
        ({"message": "THEIR WORDS", "code": "context_length_exceeded"}, Outcome.CONTEXT_LENGTH),
        ({"message": "maximum context length is 8", "code": 400}, Outcome.CONTEXT_LENGTH),
        ({"message": "THEIR WORDS", "code": "content_filter"}, Outcome.CONTENT_FILTER),
        ({"message": "THEIR WORDS", "code": "model_not_found"}, Outcome.MODEL_MISSING),
        ({"message": "THEIR WORDS"}, Outcome.MALFORMED),
        ({"message": "THEIR WORDS", "code": 200}, Outcome.MALFORMED),
        ("something broke", Outcome.MALFORMED),
        ({}, Outcome.MALFORMED),
        ([1], Outcome.MALFORMED),
        (True, Outcome.MALFORMED),
    ],
)
def test_an_error_object_inside_a_stream_is_classed_by_its_own_code(error: object, outcome: Outcome) -> None:
    raised = failure(*text_chunks("a")[:-1], {"error": error})
    assert raised.outcome is outcome
    assert "THEIR" not in str(raised)


def test_a_null_error_is_none() -> None:
    assert read(*({**chunk, "error": None} for chunk in text_chunks("a"))).finish is FinishReason.STOP


@pytest.mark.parametrize(
    "late", [b'{"usa', b'{"error": {"message": "THEIR WORDS", "code": 500}}', b'{"choices": 3}']
)
def test_nothing_spoils_an_answer_that_is_whole(late: bytes) -> None:
    answer = StreamedAnswer()
    items = answer.take([*encoded(*text_chunks("a")), late])
    answer.end()
    assert assemble(items).parts == [(TEXT, "a", "", "")]


def test_what_comes_after_the_finish_is_only_usage() -> None:
    whole = read(*text_chunks("a"), chunk_of({"content": "late"}, finish="stop"), USAGE_CHUNK)
    assert (whole.parts, whole.usage) == ([(TEXT, "a", "", "")], USAGE)


WHOLE_STREAM = (
    "".join(
        f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n"
        for chunk in [
            chunk_of({"role": "assistant", "content": ""}),
            chunk_of({"reasoning": "Häm"}),
            chunk_of({"reasoning": "…"}),
            *(chunk_of({"content": text}) for text in ("Grüße", " 😀", " aus", " Köln")),
            tool_chunk(index=0, **A),
            tool_chunk(index=1, **B),
            tool_chunk(index=0, arguments='{"city":'),
            tool_chunk(index=1, arguments='{"zone":1}'),
            tool_chunk(index=0, arguments='"Rome"}'),
            END,
            USAGE_CHUNK,
        ]
    ).encode()
    + b": bye\r\n\r\ndata: [DONE]\r\n\r\n"
)


@given(st.lists(st.integers(0, len(WHOLE_STREAM)), max_size=40))
def test_wherever_the_stream_is_cut_the_answer_is_the_same(cuts: list[int]) -> None:
    parser, answer = EventParser(), StreamedAnswer()
    items: list[StreamItem] = []
    edges = [0, *sorted(cuts), len(WHOLE_STREAM)]
    for start, end in itertools.pairwise(edges):
        items += answer.take(parser.feed(WHOLE_STREAM[start:end]))
    answer.end()
    assert assemble(items) == Assembled(
        [(REASONING, "Häm…", "", ""), (TEXT, "Grüße 😀 aus Köln", "", ""), *BOTH],
        FinishReason.TOOL_CALLS,
        USAGE,
        "m-1",
    )
