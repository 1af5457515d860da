import asyncio
import json
import logging
import struct
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock
from pydantic import ValidationError

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.needs import needs_of
from router_server.core.provider import Provider, Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import (
    ChatRequest,
    Delta,
    EmbeddingTask,
    EmbedRequest,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from router_server.providers.gemini import KIND, GeminiProvider
from tests.providers.asks import ask, ask_vectors, finish_in, items_of, read_into, text_in, usage_in
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Upstream,
    chunk,
    event,
    head,
    json_reply,
    reply,
    sse_reply,
)

KEY = "AIza-very-secret"
MODEL = "gemini-3-flash"
UNARY = f"/v1/models/{MODEL}:generateContent"
STREAM = f"/v1/models/{MODEL}:streamGenerateContent?alt=sse"


def said(text: str, finish: str = "", usage: Any = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "v", **({"usageMetadata": usage} if usage else {})}


WHOLE = said("Hello", "STOP", {"promptTokenCount": 2, "candidatesTokenCount": 1})


def make(base_url: str, surroundings: Surroundings | None = None, key: str = KEY) -> Provider:
    return KIND.create(KIND.settings(api_key=key, base_url=base_url), surroundings or Surroundings("gemini"))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def gemini(upstream: Upstream) -> AsyncIterator[Provider]:
    provider = make(upstream.base_url)
    yield provider
    await provider.close()


async def failure_of(provider: Provider) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(ask("Hi", model=MODEL))
    return caught.value


async def test_a_chat_over_the_wire(upstream: Upstream, gemini: Provider) -> None:
    upstream.then(json_reply(WHOLE))
    call = UpstreamChat(MODEL, ask("Hi").request, headers={"traceparent": "00-1-2-01"})

    answer = await gemini.chat(call)

    assert answer.message == Message(Role.ASSISTANT, (Text("Hello"),))
    assert (answer.finish_reason, answer.usage, answer.reported_model) == (
        FinishReason.STOP,
        Usage(2, 1),
        "v",
    )
    [request] = upstream.requests
    assert (request.method, request.target) == ("POST", UNARY)
    assert request.headers["x-goog-api-key"] == KEY
    assert request.headers["traceparent"] == "00-1-2-01"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


async def test_a_stream_over_the_wire(upstream: Upstream, gemini: Provider) -> None:
    last = said("lo", "STOP", {"promptTokenCount": 2, "candidatesTokenCount": 1})
    upstream.then(sse_reply([said("Hel"), last], done=False))

    items = await items_of(gemini.stream(ask("Hi", model=MODEL)))

    assert (text_in(items), finish_in(items), usage_in(items)) == ("Hello", FinishReason.STOP, Usage(2, 1))
    assert [item.model for item in items if isinstance(item, Report)] == ["v", ""]
    assert upstream.requests[0].target == STREAM


async def test_deltas_come_as_they_are_made(upstream: Upstream, gemini: Provider) -> None:
    more = asyncio.Event()
    upstream.then((*SSE_HEAD, event(said("a")), more, event(said("b", "STOP")), LAST_CHUNK))
    stream = gemini.stream(ask("Hi", model=MODEL))

    first = await anext(stream)
    more.set()
    rest = await items_of(stream)

    assert (text_in(first), text_in(rest)) == ("a", "b")


async def test_one_read_is_one_step(upstream: Upstream, gemini: Provider) -> None:
    burst = b"".join(f"data: {json.dumps(said(text))}\r\n\r\n".encode() for text in "abc")
    upstream.then((*SSE_HEAD, chunk(burst), event(said("d", "STOP")), LAST_CHUNK))

    steps = [step async for step in gemini.stream(ask("Hi", model=MODEL))]

    assert [text_in(step) for step in steps] == ["abc", "d"]


async def test_an_event_without_content_is_a_step_of_its_own(upstream: Upstream, gemini: Provider) -> None:
    upstream.then(sse_reply([{"responseId": "r"}, WHOLE], done=False))

    steps = [step async for step in gemini.stream(ask("Hi", model=MODEL))]

    assert len(steps) == 2
    assert not steps[0]


async def test_the_connection_of_a_finished_stream_serves_again(upstream: Upstream, gemini: Provider) -> None:
    upstream.always(sse_reply([WHOLE], done=False))

    for _ in range(3):
        await items_of(gemini.stream(ask("Hi", model=MODEL)))

    assert len(upstream.connections) == 1


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET, End.STALL])
async def test_after_the_finish_reason_nothing_can_spoil_the_answer(
    upstream: Upstream, gemini: Provider, end: End
) -> None:
    upstream.then((*SSE_HEAD, event(WHOLE), end))

    assert text_in(await items_of(gemini.stream(ask("Hi", model=MODEL)))) == "Hello"


async def test_a_last_event_without_its_blank_line_counts(upstream: Upstream, gemini: Provider) -> None:
    body = f"data: {json.dumps(said('a'))}\n\ndata: {json.dumps(said('b', 'STOP'))}".encode()
    upstream.then((head(content_type="text/event-stream"), body, End.CLOSE))

    assert text_in(await items_of(gemini.stream(ask("Hi", model=MODEL)))) == "ab"


@pytest.mark.parametrize(
    ("steps", "outcome", "reason"),
    [
        ((event(said("a")), LAST_CHUNK), Outcome.MALFORMED, "no_finish_reason"),
        ((LAST_CHUNK,), Outcome.MALFORMED, "no_finish_reason"),
        ((event(said("a")), event("{oops"), LAST_CHUNK), Outcome.MALFORMED, "not_json"),
        ((event(said("a")), event("[DONE]"), LAST_CHUNK), Outcome.MALFORMED, "wrong_shape"),
        ((event(said("a")), End.CLOSE), Outcome.UNAVAILABLE, "closed"),
        ((event(said("a")), End.RESET), Outcome.UNAVAILABLE, "reset"),
        ((event(said("a")), event({"error": {"code": 503}})), Outcome.UNAVAILABLE, "http_503"),
        ((event(said("a")), event({"error": {"message": "?"}})), Outcome.MALFORMED, "error_in_answer"),
        ((event({"promptFeedback": {"blockReason": "SAFETY"}}),), Outcome.CONTENT_FILTER, "prompt_blocked"),
    ],
)
async def test_a_stream_that_breaks(
    upstream: Upstream, gemini: Provider, steps: Any, outcome: Outcome, reason: str
) -> None:
    upstream.then((*SSE_HEAD, *steps))
    items: list[StreamItem] = []

    with pytest.raises(UpstreamError) as caught:
        await read_into(items, gemini.stream(ask("Hi", model=MODEL)))

    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)
    assert text_in(items) == ("a" if len(steps) > 1 else "")


async def test_closing_the_stream_closes_the_connection(upstream: Upstream, gemini: Provider) -> None:
    upstream.then((*SSE_HEAD, event(said("a")), End.STALL))
    stream = gemini.stream(ask("Hi", model=MODEL))
    await anext(stream)

    await stream.aclose()  # type: ignore[attr-defined]

    await upstream.connections[0].closed.wait()


@pytest.mark.parametrize("body", [[said("Hel"), said("lo", "STOP")], said("Hello", "STOP")])
async def test_a_server_without_sse_is_understood(upstream: Upstream, gemini: Provider, body: Any) -> None:
    upstream.then(json_reply(body))

    assert text_in(await items_of(gemini.stream(ask("Hi", model=MODEL)))) == "Hello"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "outcome", "reason"),
    [
        (
            400,
            {
                "message": "API key not valid.",
                "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
            },
            Outcome.AUTH,
            "api_key_refused",
        ),
        (
            400,
            {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."},
            Outcome.CONTEXT_LENGTH,
            "context_length",
        ),
        (
            400,
            {"status": "FAILED_PRECONDITION", "message": "User location is not supported for the API use."},
            Outcome.AUTH,
            "location_unsupported",
        ),
        (
            400,
            {"status": "FAILED_PRECONDITION", "message": "The file is not ACTIVE."},
            Outcome.INVALID_REQUEST,
            "",
        ),
        (400, {"status": "INVALID_ARGUMENT", "message": "Bad."}, Outcome.INVALID_REQUEST, ""),
        (401, {}, Outcome.AUTH, ""),
        (403, {"status": "PERMISSION_DENIED"}, Outcome.AUTH, ""),
        (404, {"status": "NOT_FOUND"}, Outcome.MODEL_MISSING, ""),
        (
            429,
            {"message": "Quota: exceeds the maximum number of tokens per minute"},
            Outcome.RATE_LIMITED,
            "",
        ),
        (500, {"status": "INTERNAL"}, Outcome.UNAVAILABLE, ""),
        (503, {"status": "UNAVAILABLE"}, Outcome.UNAVAILABLE, ""),
    ],
)
async def test_what_googles_errors_mean(
    upstream: Upstream,
    gemini: Provider,
    status: int,
    error: Any,
    outcome: Outcome,
    reason: str,
    *,
    wrapped: bool,
) -> None:
    body = {"error": {"code": status, **error}}
    upstream.then(json_reply([body] if wrapped else body, status))

    found = await failure_of(gemini)

    assert (found.outcome, found.status, found.reason) == (outcome, status, reason or f"http_{status}")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"[3]", b'{"error": "text"}', b'{"error": {"code": "\xff"}}']
)
async def test_an_error_that_says_nothing_is_left_to_its_status(
    upstream: Upstream, gemini: Provider, body: bytes
) -> None:
    upstream.then(reply(body, 503))

    assert (await failure_of(gemini)).reason == "http_503"


@pytest.mark.parametrize(
    ("delay", "headers", "wait"),
    [
        ("7s", {}, 7.0),
        ("45.837906927s", {}, 45.837906927),
        ("3600s", {}, 60.0),
        ("soon", {"Retry-After": "3"}, 3.0),
        ("2s", {"Retry-After": "30"}, 2.0),
    ],
)
async def test_the_body_says_how_long_to_wait(
    upstream: Upstream, gemini: Provider, delay: str, headers: dict[str, str], wait: float
) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}
    upstream.then(json_reply(error, 429, headers))

    found = await failure_of(gemini)

    assert found.outcome is Outcome.RATE_LIMITED
    assert found.retry_after == pytest.approx(wait)


async def test_vectors(upstream: Upstream, gemini: Provider) -> None:
    rows = [{"values": [0.5, -1.0]}, {"values": [1e-3, 2]}]
    upstream.then(json_reply({"embeddings": rows, "usageMetadata": {"promptTokenCount": 4}}))
    request = EmbedRequest("route", ("a", "b"), dimensions=2, task=EmbeddingTask.QUERY)

    found = await gemini.embed(UpstreamEmbed("gemini-embedding-001", request, {"autoTruncate": False}))

    assert found.vectors.dimensions == 2
    assert struct.unpack("<4f", found.vectors.data) == pytest.approx((0.5, -1.0, 1e-3, 2.0))
    assert found.usage == Usage(4)
    assert upstream.requests[0].target == "/v1/models/gemini-embedding-001:batchEmbedContents"
    shared = {
        "model": "models/gemini-embedding-001",
        "outputDimensionality": 2,
        "taskType": "RETRIEVAL_QUERY",
        "autoTruncate": False,
    }
    assert upstream.requests[0].json == {
        "requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]
    }


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (EmbeddingTask.QUERY, "task: search result | query: a"),
        (EmbeddingTask.DOCUMENT, "title: none | text: a"),
        (None, "a"),
    ],
)
async def test_newer_models_are_told_the_task_in_words(
    upstream: Upstream, gemini: Provider, task: EmbeddingTask | None, text: str
) -> None:
    upstream.then(json_reply({"embeddings": [{"values": [1]}]}))

    found = await gemini.embed(UpstreamEmbed("gemini-embedding-2", EmbedRequest("route", ("a",), task=task)))

    assert found.usage is None
    assert upstream.requests[0].json["requests"] == [
        {"model": "models/gemini-embedding-2", "content": {"parts": [{"text": text}]}}
    ]


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        ({}, Outcome.MALFORMED, "wrong_number_of_vectors"),
        ({"embeddings": [{"values": [1]}]}, Outcome.MALFORMED, "wrong_number_of_vectors"),
        ({"embeddings": [{"values": [1]}, {"values": [1, 2]}]}, Outcome.MALFORMED, "wrong_vector_length"),
        ({"embeddings": [{"values": []}, {"values": []}]}, Outcome.MALFORMED, "wrong_vector_length"),
        ({"embeddings": [{"values": [None]}, {"values": [1]}]}, Outcome.MALFORMED, "wrong_shape"),
        ({"error": {"code": 429}}, Outcome.RATE_LIMITED, "http_429"),
    ],
)
async def test_vectors_that_are_none(
    upstream: Upstream, gemini: Provider, body: Any, outcome: Outcome, reason: str
) -> None:
    upstream.then(json_reply(body))

    with pytest.raises(UpstreamError) as caught:
        await gemini.embed(ask_vectors("a", "b"))

    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)


async def test_an_embedding_cannot_be_given_other_texts_by_option(gemini: Provider) -> None:
    request = EmbedRequest("route", ("a",))

    with pytest.raises(UpstreamError, match="provider_option_refused"):
        await gemini.embed(UpstreamEmbed("m", request, {"content": {}}))


@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (404, None), (405, None), (400, False), (403, False), (503, False)]
)
async def test_a_check_spends_no_tokens(
    upstream: Upstream, gemini: Provider, status: int, *, well: bool | None
) -> None:
    upstream.then(json_reply({"models": []}, status))

    assert await gemini.check() is well
    assert (upstream.requests[0].method, upstream.requests[0].target) == ("GET", "/v1/models?pageSize=1")
    assert upstream.requests[0].headers["x-goog-api-key"] == KEY


async def test_an_upstream_that_is_not_there_is_unwell(upstream: Upstream, gemini: Provider) -> None:
    await upstream.stop()

    assert await gemini.check() is False


async def test_callers_who_name_ever_new_models_do_not_fill_the_memory(
    upstream: Upstream, gemini: Provider
) -> None:
    upstream.always(json_reply(WHOLE))

    for number in range(300):
        await gemini.chat(ask("Hi", model=f"model-{number}"))

    assert isinstance(gemini, GeminiProvider)
    assert len(gemini._http._urls) < 300


async def test_the_key_and_the_upstreams_words_stay_inside(
    upstream: Upstream, gemini: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = {"error": {"code": 500, "message": f"secret words about {KEY}", "status": "secret words"}}
    upstream.then(json_reply(error, 500))
    shown = [repr(gemini), repr(KIND.settings(api_key=KEY)), str(KIND.settings(api_key=KEY))]

    shown.append("".join(traceback.format_exception(await failure_of(gemini))))
    upstream.then(json_reply({"error": {"code": 500, "message": "secret words"}}))
    shown.append("".join(traceback.format_exception(await failure_of(gemini))))
    await upstream.stop()
    shown.append("".join(traceback.format_exception(await failure_of(gemini))))

    assert KEY not in "".join(shown) + caplog.text
    assert "secret words" not in "".join(shown) + caplog.text
    assert all(KEY not in request.target for request in upstream.requests)


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", f" {KEY}\n")

    assert KIND.settings().api_key.get_secret_value() == KEY
    assert KIND.settings(api_key="other").api_key.get_secret_value() == "other"
    assert KIND.settings().base_url == "https://generativelanguage.googleapis.com/v1beta"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "set GEMINI_API_KEY"),
        ({"api_key": " "}, "set GEMINI_API_KEY"),
        ({"api_key": "AIza\nsecret"}, "characters that no key has"),
        ({"api_key": "AIza-sécret"}, "characters that no key has"),
        ({"api_key": "AIza-secret", "base_url": "ftp://secret"}, "must begin with http"),
        ({"api_key": "AIza-secret", "base_url": "https://u:secret@x"}, "must not hold credentials"),
        ({"api_key": "AIza-secret", "colour": "secret"}, "colour"),
    ],
)
def test_a_mistake_in_the_settings_is_named_and_not_shown(
    settings: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)

    with pytest.raises(ValidationError, match=expected) as caught:
        KIND.settings(**settings)

    assert "secret" not in str(caught.value)


async def test_the_kind_presents_itself(upstream: Upstream, gemini: Provider) -> None:
    assert KIND.name == "gemini"
    assert gemini.address == ("127.0.0.1", int(upstream.root_url.rpartition(":")[2]))
    assert gemini.max_embed_batch == 100
    assert needs_of(EmbedRequest("r", ("a",), dimensions=3, task=EmbeddingTask.QUERY)) <= KIND.capabilities


@pytest.fixture
async def mocked(llmock: LLMock) -> AsyncIterator[Provider]:
    provider = make(f"{llmock.base_url('gemini')}/v1beta", key="llmock-test-key")
    yield provider
    await provider.close()


async def test_llmock_answers(llmock: LLMock, mocked: Provider) -> None:
    llmock.reply("Paris it is.", times=2)

    answer = await mocked.chat(ask("Capital of France?", model="gemini-2.5-pro", system="Be brief."))
    items = await items_of(mocked.stream(ask("Capital of France?", model="gemini-2.5-pro")))

    assert answer.message.content == (Text("Paris it is."),)
    assert text_in(items) == "Paris it is."
    assert finish_in(items) is answer.finish_reason is FinishReason.STOP
    assert answer.usage is not None
    assert answer.usage.output_tokens == usage_in(items).output_tokens > 0
    assert await mocked.check() is True
    llmock.assert_resilient()


async def test_llmock_calls_a_tool_and_takes_its_result(llmock: LLMock, mocked: Provider) -> None:
    llmock.call_tool("weather", {"city": "Oslo"}, times=2)
    question = Message(Role.USER, (Text("Weather in Oslo?"),))
    request = ChatRequest("route", (question,), tools=(Tool("weather", "", '{"type": "object"}'),))

    answer = await mocked.chat(UpstreamChat("gemini-2.5-pro", request))
    items = await items_of(mocked.stream(UpstreamChat("gemini-2.5-pro", request)))

    [call] = [part for part in answer.message.content if isinstance(part, ToolCall)]
    [delta] = [item for item in items if isinstance(item, Delta) and item.tool_name]
    assert (call.name, call.arguments_json) == (delta.tool_name, delta.text) == ("weather", '{"city":"Oslo"}')
    assert finish_in(items) is answer.finish_reason is FinishReason.TOOL_CALLS

    llmock.reply("It rains.")
    result = Message(Role.TOOL, (ToolResult(call.id, (Text("rain"),)),))
    request = ChatRequest("route", (question, answer.message, result), tools=request.tools)
    assert (await mocked.chat(UpstreamChat("gemini-2.5-pro", request))).message.content == (
        Text("It rains."),
    )


async def test_llmock_fails_in_every_way(llmock: LLMock, mocked: Provider) -> None:
    llmock.rate_limit(retry_after=2.0)
    limited = await failure_of(mocked)
    llmock.context_overflow()
    too_long = await failure_of(mocked)
    llmock.fail(503)
    down = await failure_of(mocked)

    assert (limited.outcome, limited.retry_after) == (Outcome.RATE_LIMITED, 2.0)
    assert (too_long.outcome, down.outcome) == (Outcome.CONTEXT_LENGTH, Outcome.UNAVAILABLE)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("truncate", Outcome.MALFORMED),
        ("corrupt", Outcome.MALFORMED),
        ("disconnect", Outcome.UNAVAILABLE),
    ],
)
async def test_llmock_breaks_a_stream(llmock: LLMock, mocked: Provider, fault: str, outcome: Outcome) -> None:
    llmock.reply("one two three four five")
    getattr(llmock, fault)(after_chunks=2)
    items: list[StreamItem] = []

    with pytest.raises(UpstreamError) as caught:
        await read_into(items, mocked.stream(ask("Count.", model="gemini-2.5-pro")))

    assert caught.value.outcome is outcome
    assert "one two three four five".startswith(text_in(items))
