"""A stream that goes wrong while its connection hands it over: one clean failure, and a new connection."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Iterator

import pytest
import uvloop

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider
from tests.providers.openai_provider import provider_at
from tests.providers.openai_talk import Assembled, call, stream, text_chunks
from tests.upstream import LAST_CHUNK, SSE_HEAD, End, Reply, Step, Steps, Upstream, chunk, event, head

TEXTS = text_chunks("a", "b", "c")
BEGUN: Steps = (*SSE_HEAD, *map(event, TEXTS[:3]))
WHOLE: Steps = (*SSE_HEAD, *map(event, text_chunks("whole")), event("[DONE]"), LAST_CHUNK)


def packed() -> Steps:
    """Return the beginning of a compressed stream, each event to be read at once."""
    packer = zlib.compressobj(wbits=31)
    head_ = head(headers={"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"})
    lines = [b"data: %s\n\n" % json.dumps(text).encode() for text in TEXTS[:3]]
    return (head_, *(chunk(packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH)) for line in lines))


BROKEN: dict[str, tuple[Steps, Outcome, str]] = {
    "chunk size": ((*BEGUN, b"zz\r\nhello\r\n", End.STALL), Outcome.MALFORMED, "bad_http"),
    "chunk end": ((*BEGUN, b"5\r\nhelloXX\r\n", End.STALL), Outcome.MALFORMED, "bad_http"),
    "chunk size, closed": ((*BEGUN, b"zz\r\nhello\r\n", End.CLOSE), Outcome.MALFORMED, "bad_http"),
    "gzip": ((*packed(), chunk(b"\xff" * 50), End.STALL), Outcome.MALFORMED, "bad_content_encoding"),
    "not JSON": ((*BEGUN, event("{nope"), End.STALL), Outcome.MALFORMED, "not_json"),
    "error object": (
        (*BEGUN, event({"error": {"message": "x", "code": 503}}), End.STALL),
        Outcome.UNAVAILABLE,
        "error_in_answer",
    ),
    "reset": ((*BEGUN, End.RESET), Outcome.UNAVAILABLE, "reset"),
    "closed": ((*BEGUN, End.CLOSE), Outcome.UNAVAILABLE, "closed"),
}


class Turns:
    """Sends each step of a reply only after what came before it has been read."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __call__(self, _request: object) -> Iterator[Step]:
        for step in self._steps:
            yield step
            pause = asyncio.Event()
            asyncio.get_running_loop().call_later(0.005, pause.set)
            yield pause


async def fail_then_answer(upstream: Upstream, broken: Reply) -> tuple[UpstreamError, Assembled]:
    """Return how a stream fails, and what the next one says; the failed one's connection is closed."""
    upstream.then(broken, WHOLE)
    provider = provider_at(upstream.base_url)
    try:
        with pytest.raises(UpstreamError) as caught:
            await asyncio.wait_for(stream(provider), 5)
        await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
        return caught.value, await stream(provider)
    finally:
        await provider.close()


async def _on_its_own(broken: Reply) -> tuple[UpstreamError, Assembled]:
    async with Upstream() as upstream:
        return await fail_then_answer(upstream, broken)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in turns"])
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_stream_fails_cleanly(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, name: str, at_once: bool
) -> None:
    steps, outcome, reason = BROKEN[name]
    error, answer = await fail_then_answer(upstream, steps if at_once else Turns(steps))
    assert (error.outcome, error.reason) == (outcome, reason)
    assert answer.parts[0][1] == "whole"
    assert len(upstream.connections) == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", BROKEN)
def test_and_so_on_the_loop_that_serves(name: str) -> None:
    steps, outcome, reason = BROKEN[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error, answer = runner.run(_on_its_own(Turns(steps)))
    assert (error.outcome, error.reason) == (outcome, reason)
    assert answer.parts[0][1] == "whole"


@pytest.mark.parametrize("junk", [b"zz\r\nhello\r\n", b"5\r\nhelloXX\r\n"], ids=["chunk size", "chunk end"])
async def test_a_whole_answer_whose_http_breaks_midway_is_not_waited_for(
    upstream: Upstream, junk: bytes
) -> None:
    begun = (head(headers={"Transfer-Encoding": "chunked"}), chunk(b'{"choices": ['))
    upstream.then(Turns((*begun, junk, End.STALL)))
    provider = provider_at(upstream.base_url)
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(provider.chat(call()), 5)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, "bad_http")
    await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
    await provider.close()


async def test_a_stream_whose_http_breaks_before_its_first_event_is_not_waited_for(
    upstream: Upstream,
) -> None:
    upstream.then(Turns((*SSE_HEAD, chunk(b"data: "), b"zz\r\nhello\r\n", End.STALL)))
    provider = provider_at(upstream.base_url)
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(stream(provider), 5)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, "bad_http")
    await provider.close()


async def test_a_stream_that_is_read_by_turns_fails_as_cleanly(upstream: Upstream, gemini: Provider) -> None:
    text = {"candidates": [{"content": {"parts": [{"text": "a"}], "role": "model"}, "index": 0}]}
    upstream.then(Turns((*SSE_HEAD, event(text), b"zz\r\nhello\r\n", End.STALL)))
    with pytest.raises(UpstreamError) as caught:
        await asyncio.wait_for(stream(gemini), 5)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, "bad_http")
