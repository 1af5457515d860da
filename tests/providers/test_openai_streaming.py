"""Streams of the kind ``openai`` over real sockets."""

import asyncio
import base64
import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

import openai
import pytest

from router_server.core.errors import Outcome
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.types import (
    DeltaKind,
    EmbedRequest,
    FinishReason,
)
from tests.providers.openai_provider import answer_of, failure
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


def embed_call(*inputs: str, **fields: Any) -> UpstreamEmbed:
    options = fields.pop("options", {})
    return UpstreamEmbed("e", EmbedRequest("route", inputs, **fields), options)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def packed(*values: float) -> str:
    return base64.b64encode(floats(*values)).decode()


async def test_openais_own_client_reads_the_same_stream(upstream: Upstream, provider: Provider) -> None:
    upstream.always(sse_reply([*text_chunks("Same ", "answer"), USAGE_CHUNK]))
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        theirs = "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
    assert (await stream(provider)).parts[0][1] == theirs


async def test_a_stream_that_is_never_read_opens_nothing(upstream: Upstream, provider: Provider) -> None:
    reads = provider.stream(call())
    await reads.aclose()  # type: ignore[attr-defined]  # the protocol promises an async generator
    assert upstream.requests == []


async def test_many_streams_at_once(upstream: Upstream, provider: Provider) -> None:
    upstream.always(sse_reply([chunk_of({"content": "x"})] * 50 + text_chunks("!")))
    wholes = await asyncio.gather(*(collect(provider.stream(call())) for _ in range(40)))
    assert {whole.parts[0][1] for whole in wholes} == {"x" * 50 + "!"}
    assert len(upstream.connections) <= 40
