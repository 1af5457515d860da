"""Streams that are given up leave nothing behind in the process that served them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from tests.e2e.phases import until
from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import Served, answer, chat, pieces, serving
from tests.upstream import LAST_CHUNK, SSE_HEAD, End, Request, Steps, Upstream, event, json_reply

AT_ONCE = 50
LATEST = 0.15
"""Seconds until the last of the streams is given up: some wait for a permit then, some have ended."""

MIB = 1024 * 1024

GROWTH = 8 * MIB
"""What a process may grow by, whatever the number of streams.

Measured: memory fills up by 5 MiB during the first 5,000 streams, as malloc's arenas take their final size,
and then moves within 2 MiB; grpc.aio itself keeps 240 bytes of each write that is cancelled, 4 MiB in 18,000
streams. So 2,000 streams show what leaks 6 kB a stream, and 20,000 what leaks 400 bytes.
"""

KEPT_BY_GRPC = 1024
"""Bytes that grpc.aio 1.85 keeps of a cancelled stream: 440 of one that its caller cancels before it is
sent, 240 of one that its server cancels in a write, found with memray; the rest is room for malloc."""

PERMITS = 30


def configuration(upstream: Upstream) -> str:
    return f"""
        providers:
          a:
            kind: openai
            api_key: very-secret-a
            base_url: {upstream.base_url}
            health_check: null
            max_concurrency: {PERMITS}
        targets:
          a1: {{provider: a, model: model-a}}
        routes:
          chat: {{targets: [a1], stream_recovery: restart}}
        telemetry: {{log: {{format: json, level: error}}}}
    """


class Streams:
    """An upstream that says nothing, only begins, goes on for a while, breaks off, or comes to an end."""

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws
        words = ["word "] * 20
        begun = (*SSE_HEAD, *map(event, pieces(*words, finish=None)))
        whole = (*SSE_HEAD, *map(event, pieces(*words)), event("[DONE]"), LAST_CHUNK)
        stall, cut = (*begun, End.STALL), (*begun, End.RESET)
        self._ways: list[Steps] = [(End.STALL,), (*SSE_HEAD, End.STALL), stall, stall, cut, whole]

    def __call__(self, _request: Request) -> Steps:
        return self._draws.choice(self._ways)


async def give_up(stub: Any, after: float) -> None:
    call = stub.StreamChat(chat(text="Hi " * 100))
    asyncio.get_running_loop().call_later(after, call.cancel)
    with contextlib.suppress(aio.AioRpcError, asyncio.CancelledError):
        async for _message in call:
            pass


async def give_up_many(stub: Any, draws: random.Random, count: int) -> None:
    """Run ``count`` streams, 50 at once, each given up at a moment of its own."""
    moments = iter([draws.uniform(0, LATEST) for _ in range(count)])

    async def one_after_the_other() -> None:
        for moment in moments:
            await give_up(stub, moment)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


@pytest.mark.parametrize(
    ("warm_up", "count"),
    [
        (500, 1_500),
        pytest.param(2_000, 18_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)
async def test_a_process_does_not_grow(warm_up: int, count: int, tmp_path: Path) -> None:
    draws = random.Random(7)  # noqa: S311 - moments, not secrets
    streams = Streams(draws)
    async with Upstream() as upstream, served(tmp_path, configuration(upstream)) as server:
        upstream.always(streams)
        await give_up_many(server.stub, draws, warm_up)
        await assert_every_permit_is_free(server, upstream)
        before, descriptors = server.stats.memory_info().rss, server.stats.num_fds()
        upstream.requests.clear()
        upstream.always(streams)
        await give_up_many(server.stub, draws, count)
        assert len(upstream.requests) > count / 10, "too few came far enough to tell anything"
        await assert_every_permit_is_free(server, upstream)
        grown = server.stats.memory_info().rss - before
        assert grown < GROWTH, f"{grown / count:.0f} bytes for each stream"
        await until(lambda: server.stats.num_fds() <= descriptors)
        assert not server.stderr, "nothing was worth an error"


async def assert_every_permit_is_free(server: ServerProcess, upstream: Upstream) -> None:
    """As many calls as there are permits reach the upstream at once, and each ends its connection."""
    all_here, before = asyncio.Event(), len(upstream.requests)
    upstream.always((all_here, *json_reply(answer(), headers={"Connection": "close"}), End.CLOSE))
    calls = [server.stub.Chat(chat(), timeout=10) for _ in range(PERMITS)]
    await upstream.requested(before + PERMITS)
    all_here.set()
    for call in calls:
        assert (await call).route.target == "a1"
    await until(lambda: all(one.closed.is_set() for one in upstream.connections))


async def test_not_one_object_stays_behind() -> None:
    """Counts what Python and malloc have given out, which is sharper than the size of a process.

    Server, caller and upstream share this process, so none of them may keep anything. What is kept is kept in
    each of the rounds; how malloc happens to fill its arenas is not.
    """
    draws, count = random.Random(7), 800  # noqa: S311 - moments, not secrets
    async with Upstream() as upstream:
        upstream.always(Streams(draws))
        async with serving(configuration(upstream)) as here:
            await give_up_many(here.stub, draws, count)
            states = [await allocated(here, upstream)]
            for _ in range(3):
                await give_up_many(here.stub, draws, count)
                states.append(await allocated(here, upstream))
    grown = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(states)]
    assert min(blocks for blocks, _native in grown) / count < 1
    assert min(native for _blocks, native in grown) / count < KEPT_BY_GRPC


async def allocated(here: Served, upstream: Upstream) -> tuple[int, int]:
    """Return the number of Python's blocks and the bytes of malloc, once nothing is under way."""
    await until(lambda: here.idle and here.server.rpc.inflight == 0)
    await until(lambda: sum(not one.closed.is_set() for one in upstream.connections) <= PERMITS)
    upstream.requests.clear()
    upstream.connections.clear()
    gc.collect()
    return sys.getallocatedblocks(), native_bytes()


def native_bytes() -> int:
    """Return the bytes that malloc has given out; 0 where it does not tell."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _MallInfo
    info = libc.mallinfo2()
    return int(info.uordblks)


class _MallInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )
