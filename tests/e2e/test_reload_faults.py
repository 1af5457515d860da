"""A stream breaks after the configuration has changed under it: it is rescued as it was begun."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.serving import chat, events_of, pieces, text_of
from tests.e2e.test_reload import reloading
from tests.upstream import SSE_HEAD, End, Upstream, event, sse_reply

ROUTE = "chat: {targets: [a1], strategy: weighted, fallback: [b1], stream_recovery: restart}"


def config(a: Upstream, b: Upstream, *, key: str = "k", fallback: bool = True) -> str:
    keys = f"kind: openai, api_key: {key}, health_check: null"
    route = ROUTE if fallback else ROUTE.replace("fallback: [b1], ", "")
    b1 = "b1: {provider: b, model: model-b}" if fallback else ""
    provider_b = f'b: {{{keys}, base_url: "{b.base_url}"}}' if fallback else ""
    return f"""
        providers:
          a: {{{keys}, base_url: "{a.base_url}"}}
          {provider_b}
        targets:
          a1: {{provider: a, model: model-a}}
          {b1}
        routes:
          {route}
    """


@pytest.mark.parametrize("fallback", [True, False], ids=["changed", "removed"])
async def test_a_stream_that_breaks_after_a_reload_is_rescued(tmp_path: Path, *, fallback: bool) -> None:
    breaks = asyncio.Event()
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), breaks, End.RESET))
        b.always(sse_reply(pieces("Hel", "lo")))
        async with reloading(tmp_path, config(a, b)) as it:
            stream = it.server.stub.StreamChat(chat())
            messages = aiter(stream)
            begun = [(await anext(messages)).WhichOneof("event") for _ in range(2)]
            assert begun == ["started", "delta"]
            await it.reload(config(a, b, key="other", fallback=fallback))
            breaks.set()
            (name, reset), *events = await events_of(stream)
            assert (name, reset.resumed) == ("reset", False)
            assert text_of(events) == "Hello"
            assert events[-1][1].route.target == "b1"
            a.always(sse_reply(pieces("He", "llo")))
            after = await events_of(it.server.stub.StreamChat(chat()))
            assert (after[-1][1].route.target, text_of(after)) == ("a1", "Hello")
