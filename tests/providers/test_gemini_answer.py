from typing import Any

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import unseal
from router_server.core.types import (
    Blob,
    Delta,
    DeltaKind,
    FinishReason,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from router_server.providers._gemini_answer import read_answer
from router_server.providers._gemini_stream import StreamedAnswer
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
    read,
    sealed,
    stream,
)


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


def test_the_signature_is_sealed_with_the_model_that_gave_it() -> None:
    [part] = read(chunk({"text": "x", "thoughtSignature": "A=="}, finish="STOP")).message.content
    envelope = unseal(part.opaque_state)

    assert envelope is not None
    assert (envelope.kind, envelope.model, envelope.payload) == ("gemini", MODEL, b"A==")


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
