"""3: streams at a pace of 20 ms per token: how many one core carries before they stutter.

A stream stutters where the gap between two tokens grows on the way: the 99th percentile of what is added
to a gap stays under 20 ms. The search goes up by a tenth until it does not, or down until it does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bench.rig.asking import run
from bench.rig.bench import BARE, LITELLM, ROUTER, Bench
from bench.rig.clients import client
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.load import Target
from bench.rig.process import BenchError
from bench.rig.subjects import PACED, direct

_STAMP: Final = re.compile(rb" @(\d+);")
_MOST_ADDED: Final = 0.020
_START_SECONDS: Final = 1.0
"""All streams begin within this time, evenly; what they do until then is not counted."""

_PATIENCE: Final = 30.0
_STEP: Final = 1.1
_DIRECT: Final = "no gateway"
_FIRST_GUESS: Final = {ROUTER: 200, BARE: 400, LITELLM: 16, _DIRECT: 800}


class _Gaps:
    """Takes one stream, and notes what was added to the gaps between its tokens."""

    __slots__ = ("_arrived", "_sent", "_since", "added", "done", "error")

    def __init__(self, since: float, added: list[float], done: Callable[[], None]) -> None:
        self._since = since
        self._arrived = 0.0
        self._sent = 0.0
        self.added = added
        self.done = done
        self.error: str | None = None

    def data(self, chunk: bytes) -> None:
        now = time.monotonic()
        for stamp in _STAMP.findall(chunk):
            sent = int(stamp) * 1e-9
            if self._sent and now > self._since:
                self.added.append((now - self._arrived) - (sent - self._sent))
            self._arrived, self._sent = now, sent

    def end(self, error: str | None) -> None:
        self.error = error
        self.done()


def measure(bench: Bench) -> list[Finding]:
    """Return how many streams at once."""
    upstream = f"{bench.paced}/{PACED.name}/v1"
    targets = {
        ROUTER: bench.new_router({PACED.name: upstream}, unlimited).target(PACED),
        BARE: bench.new_bare(upstream).target(PACED),
        _DIRECT: direct(bench.folder, upstream, PACED),
    }
    peers = bench.peers()
    if LITELLM in peers:
        targets[LITELLM] = peers[LITELLM].target(PACED)
    guesses = dict(_FIRST_GUESS)

    def search(name: str) -> float:
        guesses[name] = most_streams(partial(added_p99, targets[name]), guesses[name])
        return float(guesses[name])

    found = interleaved({name: partial(search, name) for name in targets}, bench.effort.repeats)
    results = [
        compared(3, "paced streams per core", found, ROUTER, BARE, unit="", bound=0.7, at_least=True),
        compared(3, "paced streams per core", found, ROUTER, _DIRECT, unit=""),
    ]
    if LITELLM in found:
        results.append(
            compared(3, "paced streams per core", found, ROUTER, LITELLM, unit="", bound=10.0, at_least=True)
        )
    return results


def most_streams(p99: Callable[[int], float], guess: int) -> int:
    """Return the most streams that do not stutter, in steps of a tenth."""
    if p99(guess) < _MOST_ADDED:
        while p99(more := _more(guess)) < _MOST_ADDED:
            guess = more
        return guess
    while guess > 1:
        guess = int(guess / _STEP)
        if p99(guess) < _MOST_ADDED:
            return guess
    return guess


def added_p99(target: Target, streams: int) -> float:
    """Return the 99th percentile of the seconds that are added to a gap, with so many streams at once.

    Raises:
        BenchError: a stream failed.
    """
    added = sorted(run(_streams(target, streams)))
    return added[int(len(added) * 0.99)] if added else float("inf")


async def _streams(target: Target, streams: int) -> list[float]:
    body = target.body.read_bytes()
    added: list[float] = []
    left, over = streams, asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.set()

    async with client(target, streams) as server:
        begin = time.monotonic()
        sinks = [_Gaps(begin + _START_SECONDS, added, done) for _ in range(streams)]
        for number, sink in enumerate(sinks):
            await asyncio.sleep(begin + _START_SECONDS * number / streams - time.monotonic())
            server.ask(body, sink)
        try:
            async with asyncio.timeout(_PATIENCE):
                await over.wait()
        except TimeoutError:
            return []
    failed = [sink.error for sink in sinks if sink.error]
    if failed:
        raise BenchError(f"{len(failed)} of {streams} streams failed: {failed[0]}")
    return added


def _more(streams: int) -> int:
    return max(streams + 1, int(streams * _STEP))


def unlimited(config: dict[str, Any]) -> None:
    """Let a router send as much as it can: what is looked for is not its limits, which stay on."""
    providers = config["providers"]
    for provider in providers.values():
        provider["max_concurrency"] = 100_000
