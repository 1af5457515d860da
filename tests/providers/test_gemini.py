import asyncio
import json
import logging
import traceback
from typing import Any

import pytest
from pydantic import ValidationError

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.needs import needs_of
from router_server.core.provider import Provider, UpstreamChat
from router_server.core.types import (
    EmbeddingTask,
    EmbedRequest,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Usage,
)
from router_server.providers.gemini import KIND, GeminiProvider
from tests.providers.asks import ask, finish_in, items_of, read_into, text_in, usage_in
from tests.providers.checks import verdict_of
from tests.providers.gemini_upstream import KEY, MODEL, STREAM, UNARY, WHOLE, failure_of, said
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Upstream,
    chunk,
    event,
    head,
    json_reply,
    sse_reply,
)


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


@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (404, None), (405, None), (400, False), (403, False), (503, False)]
)
async def test_a_check_spends_no_tokens(
    upstream: Upstream, gemini: Provider, status: int, *, well: bool | None
) -> None:
    upstream.then(json_reply({"models": []}, status))

    assert await verdict_of(gemini) is well
    assert (upstream.requests[0].method, upstream.requests[0].target) == ("GET", "/v1/models?pageSize=1")
    assert upstream.requests[0].headers["x-goog-api-key"] == KEY


async def test_an_upstream_that_is_not_there_is_unwell(upstream: Upstream, gemini: Provider) -> None:
    await upstream.stop()

    assert await verdict_of(gemini) is False


async def test_callers_who_name_ever_new_models_do_not_fill_the_memory(
    upstream: Upstream, gemini: Provider
) -> None:
    upstream.always(json_reply(WHOLE))

    for number in range(300):
        await gemini.chat(ask("Hi", model=f"model-{number}"))

    assert isinstance(gemini, GeminiProvider)
    assert len(gemini._http._posts) < 300


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
