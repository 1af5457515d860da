"""Every way in which litellm says that something failed, and the class that it gets."""

from __future__ import annotations

import traceback

import pytest

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.provider import Provider, UpstreamChat, UpstreamEmbed
from router_server.core.types import EmbedRequest, Finish, StreamItem
from tests.kinds.litellm_talk import CAP, KEY, LITELLM_MARKS, provider_at
from tests.providers.asks import read_into
from tests.providers.openai_talk import call, chunk_of, stream, text_chunks
from tests.secrecy import must_not_show
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Upstream,
    event,
    head,
    json_reply,
    reply,
    sse_reply,
)

pytestmark = LITELLM_MARKS

OPENAI = "openai/m"
CLAUDE = "anthropic/claude-x"


def anthropic_error(kind: str, message: str = "no") -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def openai_error(code: str = "", message: str = "no", kind: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "code": code or None}}


REFUSALS = [
    (json_reply(openai_error("rate_limit_exceeded"), 429), Outcome.RATE_LIMITED, "http_429"),
    (json_reply(openai_error("insufficient_quota"), 429), Outcome.AUTH, "insufficient_quota"),
    (json_reply(openai_error("invalid_api_key", f"bad key {KEY}"), 401), Outcome.AUTH, "invalid_api_key"),
    (json_reply({}, 402), Outcome.AUTH, "http_402"),
    (json_reply(openai_error(), 403), Outcome.AUTH, "http_403"),
    (json_reply(openai_error(), 404), Outcome.MODEL_MISSING, "http_404"),
    (json_reply({}, 408), Outcome.UNAVAILABLE, "http_408"),
    (json_reply(openai_error(), 409), Outcome.INVALID_REQUEST, "http_409"),
    (json_reply(openai_error(), 413), Outcome.INVALID_REQUEST, "http_413"),
    (json_reply(openai_error(), 422), Outcome.INVALID_REQUEST, "http_422"),
    (json_reply(openai_error(kind="invalid_request_error"), 400), Outcome.INVALID_REQUEST, "http_400"),
    (json_reply(openai_error("context_length_exceeded"), 400), Outcome.CONTEXT_LENGTH, "context_length"),
    (
        json_reply(openai_error(message="is longer than the model's context length"), 400),
        Outcome.CONTEXT_LENGTH,
        "context_length",
    ),
    (json_reply(openai_error("content_filter"), 400), Outcome.CONTENT_FILTER, "content_filter"),
    (
        json_reply(openai_error("content_policy_violation", kind="invalid_request_error"), 400),
        Outcome.CONTENT_FILTER,
        "content_filter",
    ),
    (json_reply(openai_error(), 500), Outcome.UNAVAILABLE, "http_500"),
    (json_reply({}, 502), Outcome.UNAVAILABLE, "http_502"),
    # litellm takes these words for a 429.
    (json_reply(openai_error(message="rate limit"), 503), Outcome.UNAVAILABLE, "http_503"),
    (json_reply({}, 529), Outcome.UNAVAILABLE, "http_529"),
    (reply(b"<html>", 502, {"Content-Type": "text/html"}), Outcome.UNAVAILABLE, "http_502"),
    (json_reply({}, 302, {"Location": "/elsewhere"}), Outcome.MALFORMED, "http_302"),
]
BROKEN = [
    ((End.RESET,), Outcome.UNAVAILABLE, "reset"),
    ((End.CLOSE,), Outcome.UNAVAILABLE, "closed"),
    ((head(headers={"Content-Length": "100"}) + b'{"id":', End.CLOSE), Outcome.UNAVAILABLE, "closed"),
]
UNREADABLE = [
    (reply(b"<html>"), Outcome.MALFORMED),
    (reply(b""), Outcome.MALFORMED),
    (json_reply([]), Outcome.MALFORMED),
    (json_reply({}), Outcome.MALFORMED),
    (json_reply(None), Outcome.MALFORMED),
    (json_reply({"id": "x", "choices": []}), Outcome.MALFORMED),
    (json_reply({"id": "x", "choices": [{"index": 0, "finish_reason": "stop"}]}), Outcome.MALFORMED),
    (json_reply(openai_error("server_error")), Outcome.UNAVAILABLE),
    (json_reply(openai_error("rate_limit_exceeded")), Outcome.RATE_LIMITED),
]


async def failure(provider: Provider, asked: UpstreamChat, *, streamed: bool) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await (stream(provider, asked) if streamed else provider.chat(asked))
    must_not_show("a failure", caught.value, "".join(traceback.format_exception(caught.value)))
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("what", "outcome", "reason"), REFUSALS)
async def test_what_an_upstream_refuses(
    upstream: Upstream, provider: Provider, what: Reply, outcome: Outcome, reason: str, *, streamed: bool
) -> None:
    upstream.then(what)
    error = await failure(provider, call(model=OPENAI), streamed=streamed)
    assert (error.outcome, error.reason) == (outcome, reason)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("what", "outcome", "reason"),
    [
        (json_reply(anthropic_error("rate_limit_error"), 429), Outcome.RATE_LIMITED, "http_429"),
        (json_reply(anthropic_error("authentication_error"), 401), Outcome.AUTH, "http_401"),
        (json_reply(anthropic_error("permission_error"), 403), Outcome.AUTH, "http_403"),
        (json_reply(anthropic_error("not_found_error"), 404), Outcome.MODEL_MISSING, "http_404"),
        (json_reply(anthropic_error("overloaded_error"), 529), Outcome.UNAVAILABLE, "http_529"),
        (json_reply(anthropic_error("api_error"), 500), Outcome.UNAVAILABLE, "http_500"),
        (
            json_reply(anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 8"), 400),
            Outcome.CONTEXT_LENGTH,
            "context_length",
        ),
        (
            json_reply(anthropic_error("invalid_request_error", "max_tokens: must be positive"), 400),
            Outcome.INVALID_REQUEST,
            "http_400",
        ),
        (json_reply({}, 302, {"Location": "/elsewhere"}), Outcome.MALFORMED, "http_302"),
        *BROKEN,
    ],
)
async def test_another_provider_that_refuses(
    upstream: Upstream, what: Reply, outcome: Outcome, reason: str, *, streamed: bool
) -> None:
    provider = provider_at(upstream.root_url)
    upstream.then(what)
    error = await failure(provider, call(model=CLAUDE), streamed=streamed)
    assert (error.outcome, error.reason) == (outcome, reason)
    assert len(upstream.requests) == 1
    await provider.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "900"}, CAP),
    ],
)
async def test_a_wait_that_is_asked_for(
    upstream: Upstream, provider: Provider, headers: dict[str, str], wait: float | None, *, streamed: bool
) -> None:
    upstream.then(json_reply(openai_error(), 429, headers))
    error = await failure(provider, call(model=OPENAI), streamed=streamed)
    assert (error.outcome, error.retry_after) == (Outcome.RATE_LIMITED, wait)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("what", "outcome", "reason"), BROKEN)
async def test_connections_that_break(
    upstream: Upstream, provider: Provider, what: Reply, outcome: Outcome, reason: str, *, streamed: bool
) -> None:
    upstream.then(what)
    error = await failure(provider, call(model=OPENAI), streamed=streamed)
    assert error.outcome is outcome
    assert error.reason in {reason, "closed"}
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("what", "outcome"), UNREADABLE)
async def test_answers_that_are_none(
    upstream: Upstream, provider: Provider, what: Reply, outcome: Outcome
) -> None:
    upstream.then(what)
    error = await failure(provider, call(model=OPENAI), streamed=False)
    assert error.outcome is outcome


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (sse_reply(text_chunks("a")[:-1]), Outcome.MALFORMED),
        (sse_reply(text_chunks("a")[:-1], done=False), Outcome.MALFORMED),
        (sse_reply([]), Outcome.MALFORMED),
        (json_reply({"id": "x", "choices": []}), Outcome.MALFORMED),
        (reply(b"<html>", 200, {"Content-Type": "text/html"}), Outcome.MALFORMED),
        ((*SSE_HEAD, event(chunk_of({"content": "a"})), End.RESET), Outcome.UNAVAILABLE),
        ((*SSE_HEAD, event(chunk_of({"content": "a"})), End.CLOSE), Outcome.UNAVAILABLE),
        ((*SSE_HEAD, event(chunk_of({"content": "a"})), event("{no"), LAST_CHUNK), Outcome.MALFORMED),
        (sse_reply([chunk_of({"content": "a"}), openai_error("rate_limit_exceeded")]), Outcome.RATE_LIMITED),
        (sse_reply([chunk_of({"content": "a"}), openai_error("server_error")]), Outcome.UNAVAILABLE),
        (sse_reply([openai_error("context_length_exceeded")]), Outcome.CONTEXT_LENGTH),
        (sse_reply([openai_error()]), Outcome.MALFORMED),
    ],
)
async def test_streams_that_fail(
    upstream: Upstream, provider: Provider, what: Reply, outcome: Outcome
) -> None:
    upstream.then(what)
    error = await failure(provider, call(model=OPENAI), streamed=True)
    assert error.outcome is outcome
    assert len(upstream.requests) == 1


async def test_no_end_is_invented(upstream: Upstream, provider: Provider) -> None:
    """litellm says ``stop`` also where nobody did; whoever reads must not hear of it."""
    upstream.then(json_reply({"id": "x", "choices": []}))
    items: list[StreamItem] = []
    with pytest.raises(UpstreamError):
        await read_into(items, provider.stream(call(model=OPENAI)))
    assert not [item for item in items if isinstance(item, Finish)]


async def test_nobody_listens(upstream: Upstream, provider: Provider) -> None:
    await upstream.stop()
    error = await failure(provider, call(model=OPENAI), streamed=False)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "refused")


async def test_a_name_that_nobody_has() -> None:
    provider = provider_at("http://no.such.host.invalid/v1")
    error = await failure(provider, call(model=OPENAI), streamed=False)
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "dns")
    await provider.close()


async def test_connecting_has_its_time() -> None:
    """The address is one that is reserved for documentation: nobody answers, or nothing leads there."""
    provider = provider_at("http://192.0.2.1:9/v1")
    error = await failure(provider, call(model=OPENAI, connect_timeout=0.1), streamed=False)
    assert error.outcome in {Outcome.TIMEOUT, Outcome.UNAVAILABLE}
    if error.outcome is Outcome.TIMEOUT:
        assert (error.reason, error.phase) == ("connect_timeout", Phase.CONNECT)
    await provider.close()


async def test_what_litellm_itself_refuses(upstream: Upstream) -> None:
    provider = provider_at(upstream.root_url)
    request = EmbedRequest("r", ("a",), dimensions=7)
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(UpstreamEmbed("openai/text-embedding-ada-002", request))
    assert (caught.value.outcome, caught.value.reason) == (Outcome.INVALID_REQUEST, "parameter_unsupported")
    assert not upstream.requests
    await provider.close()


@pytest.mark.parametrize("model", [OPENAI, CLAUDE])
async def test_no_credentials_anywhere(
    monkeypatch: pytest.MonkeyPatch, upstream: Upstream, model: str
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider = provider_at(upstream.root_url, api_key=None)
    error = await failure(provider, call(model=model), streamed=False)
    assert (error.outcome, error.reason) == (Outcome.AUTH, "no_credentials")
    await provider.close()
