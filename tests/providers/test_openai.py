"""The kind ``openai`` over real sockets."""

import asyncio
import base64
import gzip
import json
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.provider import Capability, Provider, Surroundings, UpstreamEmbed
from router_server.core.types import (
    Answer,
    DeltaKind,
    EmbedRequest,
    FinishReason,
    Generation,
    Message,
    Reasoning,
    Refusal,
    Role,
    Text,
    TokenLogprob,
    ToolCall,
)
from router_server.providers.openai import KIND, OpenAIProvider, Settings
from tests.providers.openai_talk import USAGE, USAGE_CHUNK, call, chunk_of, collect, stream, text_chunks
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Upstream,
    chunk,
    event,
    head,
    json_reply,
    reply,
    sse_reply,
)

KEY = "sk-very-secret"
PATH = "/v1/chat/completions"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def provider_at(base_url: str, **settings: Any) -> Provider:
    made = KIND.create(KIND.settings(base_url=base_url, api_key=KEY, **settings), Surroundings(name="x"))
    assert isinstance(made, OpenAIProvider)
    return made


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Provider]:
    made = provider_at(upstream.base_url)
    yield made
    await made.close()


async def failure(provider: Provider, **fields: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await stream(provider, call(**fields))
    text = "".join(traceback.format_exception(caught.value))
    assert KEY not in text
    assert "THEIR WORDS" not in text
    return caught.value


def answer_of(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    choice.update({name: more.pop(name) for name in ("logprobs",) if name in more})
    return {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice], **more}


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


async def test_a_stream(upstream: Upstream, provider: Provider) -> None:
    upstream.then(sse_reply([*text_chunks("Hel", "lo"), USAGE_CHUNK]))
    whole = await stream(provider)
    assert whole.parts == [(DeltaKind.TEXT, "Hello", "", "")]
    assert (whole.finish, whole.usage, whole.model) == (FinishReason.STOP, USAGE, "m-1")
    assert upstream.requests[0].json["stream"] is True


async def test_streams_follow_each_other_on_one_connection(upstream: Upstream, provider: Provider) -> None:
    go = asyncio.Event()
    upstream.then((*SSE_HEAD, *map(event, text_chunks("a")), event("[DONE]"), go, LAST_CHUNK))
    upstream.then(sse_reply(text_chunks("b")))
    reads = provider.stream(call())
    while "Finish" not in [type(item).__name__ for item in await anext(reads)]:
        pass
    asyncio.get_running_loop().call_soon(go.set)
    assert [item async for read in reads for item in read] == []
    await stream(provider)
    assert len(upstream.connections) == 1


async def test_every_read_is_one_yield_and_comes_at_once(upstream: Upstream, provider: Provider) -> None:
    go = asyncio.Event()
    first, *rest = text_chunks("a", "b", "c")
    burst = b"".join(map(event, rest))
    upstream.then((*SSE_HEAD, event(first), go, burst, event("[DONE]"), LAST_CHUNK))
    reads = provider.stream(call())
    assert len(await anext(reads)) == 1
    go.set()
    second = await anext(reads)
    assert [type(item).__name__ for item in second] == ["Delta", "Finish"]
    assert [read async for read in reads] in ([], [[]])


async def test_comments_are_no_sign_of_life(upstream: Upstream, provider: Provider) -> None:
    pings = [chunk(b": PROCESSING\n\n")] * 3
    upstream.then((*SSE_HEAD, *pings, *map(event, text_chunks("a")), event("[DONE]"), LAST_CHUNK))
    reads = [list(read) async for read in provider.stream(call())]
    assert reads[0], "the first yield is the first event"


@pytest.mark.parametrize(
    "ending",
    [
        (LAST_CHUNK,),
        (End.CLOSE,),
        (End.RESET,),
        (event("[DONE]"), End.STALL),
        (chunk(b"data: [DONE]"), LAST_CHUNK),
        (chunk(b'data: {"choices'), LAST_CHUNK),
    ],
    ids=["end", "cut", "reset", "done, then silence", "no final newline", "half a chunk"],
)
async def test_after_the_finish_reason_any_end_is_a_success(
    upstream: Upstream, provider: Provider, ending: Any
) -> None:
    upstream.then((*SSE_HEAD, *map(event, text_chunks("whole")), *ending), sse_reply(text_chunks("next")))
    async with asyncio.timeout(10):
        assert (await stream(provider)).parts[0][1] == "whole"
        assert (await stream(provider)).parts[0][1] == "next"


async def test_a_last_event_without_newline_at_a_close_delimited_end(
    upstream: Upstream, provider: Provider
) -> None:
    chunks = [json.dumps(one) for one in text_chunks("whole")]
    body = "\n\n".join(f"data: {one}" for one in chunks).encode()
    upstream.then((head(headers={"Connection": "close"}, content_type="text/event-stream"), body, End.CLOSE))
    assert (await stream(provider)).finish is FinishReason.STOP


OPENING = (*SSE_HEAD, *map(event, text_chunks("cut")[:-1]))


@pytest.mark.parametrize(
    ("what", "outcome", "reason"),
    [
        ((*OPENING, LAST_CHUNK), Outcome.MALFORMED, "no_finish_reason"),
        ((*OPENING, event("[DONE]"), LAST_CHUNK), Outcome.MALFORMED, "no_finish_reason"),
        ((*OPENING, End.CLOSE), Outcome.UNAVAILABLE, "closed"),
        ((*OPENING, End.RESET), Outcome.UNAVAILABLE, "reset"),
        ((*OPENING, event("{THEIR WORDS"), LAST_CHUNK), Outcome.MALFORMED, "not_json"),
        ((*OPENING, chunk(b'data: {"choices'), LAST_CHUNK), Outcome.MALFORMED, "not_json"),
        (
            (*OPENING, event({"error": {"message": "THEIR WORDS", "type": "server_error"}}), LAST_CHUNK),
            Outcome.UNAVAILABLE,
            "error_in_answer",
        ),
        ((*SSE_HEAD, LAST_CHUNK), Outcome.MALFORMED, "no_finish_reason"),
        (reply(b"", 200), Outcome.MALFORMED, "not_json"),
        (json_reply(answer_of({"content": "x"})), Outcome.MALFORMED, "not_a_stream"),
        (
            json_reply({"error": {"message": "THEIR WORDS", "code": 429}}),
            Outcome.RATE_LIMITED,
            "error_in_answer",
        ),
        ((*SSE_HEAD, chunk(b"data: " + b"x" * 9_000_000), End.STALL), Outcome.MALFORMED, "event_too_large"),
    ],
)
async def test_streams_that_fail(
    upstream: Upstream, provider: Provider, what: Reply, outcome: Outcome, reason: str
) -> None:
    upstream.then(what, sse_reply(text_chunks("next")))
    error = await failure(provider)
    assert (error.outcome, error.reason) == (outcome, reason)
    assert (await stream(provider)).parts[0][1] == "next"


async def test_a_megabyte_in_one_event(upstream: Upstream, provider: Provider) -> None:
    text = "é" * 500_000
    upstream.then(sse_reply(text_chunks(text)))
    assert (await stream(provider)).parts[0][1] == text


async def test_a_compressed_stream(upstream: Upstream, provider: Provider) -> None:
    plain = "".join(f"data: {json.dumps(one)}\n\n" for one in text_chunks(*"compressed")).encode()
    packed = gzip.compress(plain)
    headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}
    upstream.then((
        head(headers=headers, content_type="text/event-stream"),
        *(chunk(packed[i : i + 7]) for i in range(0, len(packed), 7)),
        LAST_CHUNK,
    ))  # fmt: skip
    assert (await stream(provider)).parts[0][1] == "compressed"


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


async def test_closing_the_stream_closes_the_connection(upstream: Upstream, provider: Provider) -> None:
    upstream.then((*OPENING, End.STALL))
    reads = provider.stream(call())
    await anext(reads)
    await reads.aclose()  # type: ignore[attr-defined]  # the protocol promises an async generator
    async with asyncio.timeout(5):
        await upstream.connections[0].closed.wait()


@pytest.mark.parametrize(
    "start",
    [lambda p: p.chat(call()), stream, lambda p: p.embed(embed_call("a"))],
    ids=["chat", "stream", "embed"],
)
@pytest.mark.parametrize("what", [(End.STALL,), (*OPENING, End.STALL)], ids=["headers", "body"])
async def test_cancelling_closes_the_connection(
    upstream: Upstream, provider: Provider, start: Callable[[Provider], Any], what: Reply
) -> None:
    upstream.then(what)
    task = asyncio.ensure_future(start(provider))
    await upstream.requested()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await upstream.connections[0].closed.wait()


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


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def packed(*values: float) -> str:
    return base64.b64encode(floats(*values)).decode()


async def test_embeddings(upstream: Upstream, provider: Provider) -> None:
    rows = [{"index": 1, "embedding": packed(3, 4)}, {"index": 0, "embedding": packed(1, 2)}]
    upstream.then(
        json_reply({"data": rows, "model": "e-1", "usage": {"prompt_tokens": 6, "total_tokens": 6}})
    )
    embeddings = await provider.embed(embed_call("a", "b", dimensions=2, options={"x": 1}))
    assert (embeddings.vectors.dimensions, embeddings.vectors.data) == (2, floats(1, 2, 3, 4))
    assert embeddings.usage is not None
    assert (embeddings.usage.input_tokens, embeddings.reported_model) == (6, "e-1")
    sent = upstream.requests[0]
    assert sent.target == "/v1/embeddings"
    assert sent.json == {
        "model": "e",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "dimensions": 2,
        "x": 1,
    }


async def test_embeddings_of_a_server_that_knows_only_numbers(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply({"data": [{"embedding": [1, 0.5]}, {"embedding": [-1.5, 2e-3]}]}))
    embeddings = await provider.embed(embed_call("a", "b"))
    assert embeddings.vectors.data == floats(1, 0.5, -1.5, 2e-3)
    assert embeddings.usage is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0, 2.0]}], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 7, "embedding": [1.0]}], "wrong_vector_count"),
        ([{"embedding": [1.0, 2.0]}, {"embedding": [1.0]}], "wrong_dimensions"),
        ([{"embedding": [1.0]}, {"embedding": [1.0]}], "wrong_dimensions"),
        ([{"embedding": []}, {"embedding": []}], "wrong_dimensions"),
        ([{"embedding": "AAAA"}, {"embedding": "AAAA"}], "wrong_dimensions"),
        ([{"embedding": "!"}, {"embedding": "!"}], "wrong_shape"),
        ([{"embedding": ["x"]}, {"embedding": ["x"]}], "wrong_shape"),
        ({}, "wrong_shape"),
    ],
)
async def test_embeddings_that_are_none(
    upstream: Upstream, provider: Provider, data: object, reason: str
) -> None:
    upstream.then(json_reply({"data": data}))
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(embed_call("a", "b", dimensions=2))
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, reason)


async def test_an_option_that_is_refused_never_leaves(upstream: Upstream, provider: Provider) -> None:
    for attempt in (provider.embed(embed_call("a", options={"user": "x"})),
                    provider.chat(call(options={"model": "gpt-5"}))):  # fmt: skip
        with pytest.raises(UpstreamError, match="provider_option_refused"):
            await attempt
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("what", "verdict"),
    [
        (json_reply({"object": "list", "data": [{"id": "m"}]}), True),
        (json_reply({}, 401), False),
        (json_reply({}, 403), False),
        (json_reply({}, 404), None),
        (json_reply({}, 405), None),
        (json_reply({}, 429), None),
        (json_reply({}, 500), False),
        (json_reply({}, 302, {"Location": "/elsewhere"}), False),
        ((End.RESET,), False),
        (reply(b"<html>", 200), False),
    ],
)
async def test_the_active_check(
    upstream: Upstream, provider: Provider, what: Reply, verdict: bool | None
) -> None:
    upstream.on("/v1/models", what)
    assert await provider.check() is verdict
    assert [request.target for request in upstream.requests] == ["/v1/models"]
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_check_of_a_server_that_is_down(upstream: Upstream, provider: Provider) -> None:
    await upstream.stop()
    assert await provider.check() is False


async def test_the_account_is_named_in_calls_and_checks(upstream: Upstream) -> None:
    provider = provider_at(upstream.base_url, organization="org", project="proj")
    upstream.on("/v1/models", json_reply({"data": []})).then(sse_reply(text_chunks("a")))
    await provider.check()
    await stream(provider)
    for request in upstream.requests:
        assert request.headers["openai-organization"] == "org"
        assert request.headers["openai-project"] == "proj"
    await provider.close()


async def test_a_server_that_wants_no_key_gets_none(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = Settings(base_url=upstream.base_url, api_key=pydantic.SecretStr(""))
    provider = KIND.create(settings, Surroundings(name="x"))
    upstream.on("/v1/models", json_reply({"data": []})).then(sse_reply(text_chunks("a")))
    assert await provider.check() is True
    await stream(provider)
    assert not any("authorization" in request.headers for request in upstream.requests)
    await provider.close()


async def test_openais_own_client_reads_the_same_stream(upstream: Upstream, provider: Provider) -> None:
    upstream.always(sse_reply([*text_chunks("Same ", "answer"), USAGE_CHUNK]))
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        theirs = "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
    assert (await stream(provider)).parts[0][1] == theirs


def clean_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_what_is_not_set_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch, OPENAI_API_KEY=f"{KEY}\n", OPENAI_BASE_URL="http://h:1/v1",
                      OPENAI_ORG_ID="o", OPENAI_PROJECT_ID="p")  # fmt: skip
    settings = Settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert (settings.base_url, settings.organization, settings.project) == ("http://h:1/v1", "o", "p")
    assert KEY not in repr(settings) + str(settings) + repr(settings.model_dump())
    assert Settings(base_url="http://other/v1", organization="q").organization == "q"


def test_openai_itself_insists_on_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
    with pytest.raises(pydantic.ValidationError, match="OPENAI_API_KEY"):
        Settings()
    assert Settings(base_url="http://127.0.0.1:1/v1").api_key is None


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
async def test_the_name_of_the_token_limit_follows_the_host(base_url: str, name: str) -> None:
    provider = provider_at(base_url)
    assert isinstance(provider, OpenAIProvider)
    assert provider._wire._dialect.max_tokens_field == name
    await provider.close()


async def test_the_name_of_the_token_limit_can_be_set(upstream: Upstream) -> None:
    provider = provider_at(upstream.base_url, max_tokens_field="max_completion_tokens", stream_usage=False)
    upstream.then(sse_reply(text_chunks("a")))
    await stream(provider, call(generation=Generation(max_output_tokens=3)))
    assert upstream.requests[0].json["max_completion_tokens"] == 3
    assert "stream_options" not in upstream.requests[0].json
    await provider.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "unix:///run/x.sock"},
        {"base_url": "api.openai.com"},
        {"base_url": f"https://user:{KEY}@h/v1"},
        {"base_url": f"https://h/v1?key={KEY}"},
        {"api_key": f"{KEY}\nsecond line"},
        {"max_tokens_field": "tokens"},
        {"unknown": 1},
    ],
)
def test_settings_that_are_refused_without_telling_a_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Settings(**{"api_key": "k", **wrong})
    assert KEY not in str(caught.value)


async def test_the_address_and_the_batch(provider: Provider, upstream: Upstream) -> None:
    host, port = provider.address
    assert f"http://{host}:{port}/v1" == upstream.base_url
    assert provider.max_embed_batch == 2048


def test_the_kind() -> None:
    assert (KIND.name, KIND.settings) == ("openai", Settings)
    assert Capability.CONTINUATION not in KIND.capabilities
    assert {Capability.TOOLS, Capability.AUDIO_INLINE, Capability.DOCUMENT_INLINE} <= KIND.capabilities


async def test_a_stream_that_is_never_read_opens_nothing(upstream: Upstream, provider: Provider) -> None:
    reads = provider.stream(call())
    await reads.aclose()  # type: ignore[attr-defined]  # the protocol promises an async generator
    assert upstream.requests == []


async def test_many_streams_at_once(upstream: Upstream, provider: Provider) -> None:
    upstream.always(sse_reply([chunk_of({"content": "x"})] * 50 + text_chunks("!")))
    wholes = await asyncio.gather(*(collect(provider.stream(call())) for _ in range(40)))
    assert {whole.parts[0][1] for whole in wholes} == {"x" * 50 + "!"}
    assert len(upstream.connections) <= 40


def test_a_start_without_openai_does_not_wait_for_its_package(tmp_path: Path) -> None:
    """Importing the kind, as finding all kinds does, must not import the package."""
    code = "import sys, router_server.providers.openai; sys.exit('openai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)  # noqa: S603 - our own
    assert run.returncode == 0
