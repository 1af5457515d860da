"""Whole answers and refusals of the kind ``openai`` over real sockets."""

import json
import socket
from typing import Any

import pytest

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.types import (
    Answer,
    EmbedRequest,
    FinishReason,
    Message,
    Reasoning,
    Refusal,
    Role,
    Text,
    TokenLogprob,
    ToolCall,
)
from tests.providers.openai_provider import KEY, answer_of, failure, provider_at
from tests.providers.openai_talk import USAGE, USAGE_CHUNK, call, stream, text_chunks
from tests.upstream import (
    Upstream,
    json_reply,
    reply,
    sse_reply,
)

PATH = "/v1/chat/completions"


async def test_an_answer(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply(answer_of({"content": "Hi!"}, usage=USAGE_CHUNK["usage"])))
    answer = await provider.chat(call(headers={"traceparent": "00-ab"}, idempotency_key="once"))
    assert answer == Answer(Message(Role.ASSISTANT, (Text("Hi!"),)), FinishReason.STOP, USAGE, "m-1")
    request = upstream.requests[0]
    assert (request.method, request.target) == ("POST", PATH)
    assert request.json == {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["traceparent"] == "00-ab"
    assert request.headers["idempotency-key"] == "once"


async def test_everything_that_an_answer_may_hold(upstream: Upstream, provider: Provider) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"type": "function", "function": {"name": "g"}},
    ]
    message = {"content": "T", "reasoning_content": "R", "refusal": "N", "tool_calls": calls}
    tokens = [{"token": "T", "logprob": -0.5, "bytes": [84], "top_logprobs": []}]
    upstream.then(json_reply(answer_of(message, "tool_calls", logprobs={"content": tokens})))
    answer = await provider.chat(call())
    *parts, last = answer.message.content
    assert parts == [Reasoning("R"), Text("T"), Refusal("N"), ToolCall("a", "f", '{"x":1}')]
    assert isinstance(last, ToolCall)
    assert (last.name, last.arguments_json, last.id[:5]) == ("g", "", "call_")
    assert (answer.finish_reason, answer.usage) == (FinishReason.TOOL_CALLS, None)
    assert answer.logprobs == (TokenLogprob("T", -0.5),)


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (b"<html>", Outcome.MALFORMED, "not_json"),
        (b"", Outcome.MALFORMED, "not_json"),
        (b"[]", Outcome.MALFORMED, "wrong_shape"),
        (b"{}", Outcome.MALFORMED, "no_choices"),
        (b'{"choices": []}', Outcome.MALFORMED, "no_choices"),
        (b'{"choices": [{"finish_reason": "stop"}]}', Outcome.MALFORMED, "no_choices"),
        (json.dumps(answer_of({"content": "x"}, "")).encode(), Outcome.MALFORMED, "no_finish_reason"),
        (json.dumps(answer_of({"content": 1})).encode(), Outcome.MALFORMED, "wrong_shape"),
        (
            json.dumps(answer_of({"tool_calls": [{"id": "a"}]})).encode(),
            Outcome.MALFORMED,
            "tool_call_without_name",
        ),
        (b'{"error": {"message": "THEIR WORDS", "code": 503}}', Outcome.UNAVAILABLE, "error_in_answer"),
    ],
)
async def test_answers_that_are_none(
    upstream: Upstream, provider: Provider, body: bytes, outcome: Outcome, reason: str
) -> None:
    upstream.then(reply(body))
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(call())
    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)


def error_body(**error: Any) -> dict[str, Any]:
    return {"error": {"message": "THEIR WORDS", **error}}


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (400, error_body(type="invalid_request_error"), Outcome.INVALID_REQUEST, "http_400"),
        (400, error_body(code="context_length_exceeded"), Outcome.CONTEXT_LENGTH, "context_length"),
        (400, error_body(type="exceed_context_size_error"), Outcome.CONTEXT_LENGTH, "context_length"),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400},
            Outcome.CONTEXT_LENGTH,
            "context_length",
        ),
        (
            400,
            {
                "error": {
                    "message": "This model's maximum context length is 8",
                    "type": "BadRequestError",
                    "code": 400,
                }
            },
            Outcome.CONTEXT_LENGTH,
            "context_length",
        ),
        (413, {"error": "prompt is too long"}, Outcome.CONTEXT_LENGTH, "context_length"),
        (413, {"error": "body too big"}, Outcome.INVALID_REQUEST, "http_413"),
        (500, {"error": "maximum context length"}, Outcome.UNAVAILABLE, "http_500"),
        (400, error_body(code="content_filter"), Outcome.CONTENT_FILTER, "content_filter"),
        (400, error_body(code="content_policy_violation"), Outcome.CONTENT_FILTER, "content_filter"),
        (401, error_body(code="invalid_api_key"), Outcome.AUTH, "invalid_api_key"),
        (402, error_body(), Outcome.AUTH, "http_402"),
        (403, error_body(), Outcome.AUTH, "http_403"),
        (403, error_body(code="model_not_found"), Outcome.MODEL_MISSING, "model_not_found"),
        (404, error_body(code="model_not_found"), Outcome.MODEL_MISSING, "model_not_found"),
        (404, {"detail": "Not Found"}, Outcome.MODEL_MISSING, "http_404"),
        (429, error_body(code="rate_limit_exceeded"), Outcome.RATE_LIMITED, "http_429"),
        (429, error_body(code="insufficient_quota"), Outcome.AUTH, "insufficient_quota"),
        (429, error_body(type="insufficient_quota", code=None), Outcome.AUTH, "insufficient_quota"),
        (503, [error_body(code="whatever")], Outcome.UNAVAILABLE, "http_503"),
        (400, [error_body(code="content_filter")], Outcome.CONTENT_FILTER, "content_filter"),
        (500, [], Outcome.UNAVAILABLE, "http_500"),
    ],
)
async def test_error_bodies(
    upstream: Upstream, provider: Provider, status: int, body: object, outcome: Outcome, reason: str
) -> None:
    upstream.then(json_reply(body, status, {"Retry-After": "2"}))
    error = await failure(provider)
    assert (error.outcome, error.reason, error.status, error.retry_after) == (outcome, reason, status, 2.0)


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway", b"{", b"\xff\xfe", b"[[]]"])
async def test_error_bodies_that_say_nothing(upstream: Upstream, provider: Provider, body: bytes) -> None:
    upstream.then(reply(body, 502))
    assert (await failure(provider)).reason == "http_502"


async def test_the_connect_timer_is_the_calls_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        provider = provider_at(f"https://127.0.0.1:{silent.getsockname()[1]}/v1")
        error = await failure(provider, connect_timeout=0.05)
    assert (error.outcome, error.phase) == (Outcome.TIMEOUT, Phase.CONNECT)
    await provider.close()


@pytest.mark.parametrize("key", ["a\nb", "é", "\x00"])
async def test_an_idempotency_key_that_no_header_can_carry(provider: Provider, key: str) -> None:
    error = await failure(provider, idempotency_key=key)
    assert (error.outcome, error.reason) == (Outcome.INVALID_REQUEST, "idempotency_key_refused")


async def test_a_continuation_is_not_the_same_request_again(upstream: Upstream, provider: Provider) -> None:
    upstream.then(sse_reply(text_chunks("b")))
    await stream(provider, call(continuation="a", idempotency_key="once"))
    assert "idempotency-key" not in upstream.requests[0].headers


def embed_call(*inputs: str, **fields: Any) -> UpstreamEmbed:
    options = fields.pop("options", {})
    return UpstreamEmbed("e", EmbedRequest("route", inputs, **fields), options)


async def test_an_option_that_is_refused_never_leaves(upstream: Upstream, provider: Provider) -> None:
    for attempt in (provider.embed(embed_call("a", options={"user": "x"})),
                    provider.chat(call(options={"model": "gpt-5"}))):  # fmt: skip
        with pytest.raises(UpstreamError, match="provider_option_refused"):
            await attempt
    assert upstream.requests == []
