"""3: streams at a pace of 20 ms per token: how many one core carries before they stutter.

A stream stutters where the gap between two tokens grows on the way: the 99th percentile of what is added
to a gap stays under 20 ms. The search halves the distance between the most that did not stutter and the
fewest that did, until a tenth is left. Fewest that did twice: whatever else the machine does for a moment
spoils one run alone. The upstream and the client must carry as many by themselves, which is shown too.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import sqrt
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
_WHAT: Final = "paced streams per core"
_PRECISION: Final = 1.1
_STRIDE: Final = 1.4
_LONGEST_STRIDE: Final = 2.0
_TRIES: Final = 2
_FIRST_GUESS: Final = {ROUTER: 150, BARE: 200, LITELLM: 12}


class _Gaps:
    """Takes one stream, and notes what was added to the gaps between its tokens.

    Tokens that arrive together are one gap, from the last one before them to the first of them. Counted one
    by one, those behind the first would seem to have come early, and the more came at once the better.
    """

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
        stamps = _STAMP.findall(chunk)
        if not stamps:
            return
        if self._sent and now > self._since:
            self.added.append((now - self._arrived) - (int(stamps[0]) * 1e-9 - self._sent))
        self._arrived, self._sent = now, int(stamps[-1]) * 1e-9

    def end(self, error: str | None) -> None:
        self.error = error
        self.done()


def measure(bench: Bench) -> list[Finding]:
    """Return how many streams at once."""
    upstream = f"{bench.paced}/{PACED.name}/v1"
    targets = {
        ROUTER: bench.new_router({PACED.name: upstream}, unlimited).target(PACED),
        BARE: bench.new_bare(upstream).target(PACED),
    }
    peers = bench.peers()
    if LITELLM in peers:
        targets[LITELLM] = peers[LITELLM].target(PACED)
    found: dict[str, list[float]] = {name: [] for name in targets}

    def search(name: str) -> None:
        before = found[name]
        guess, stride = (int(before[-1]), _PRECISION) if before else (_FIRST_GUESS[name], _STRIDE)
        before.append(float(most_streams(partial(added_p99, targets[name]), guess, stride)))

    interleaved({name: partial(search, name) for name in targets}, bench.effort.repeats)
    results = [compared(3, _WHAT, found, ROUTER, BARE, unit="", bound=0.7, at_least=True)]
    if LITELLM in found:
        results.append(compared(3, _WHAT, found, ROUTER, LITELLM, unit="", bound=10.0, at_least=True))
    return [*results, _of_the_rig(direct(bench.folder, upstream, PACED), found)]


def most_streams(p99: Callable[[int], float], guess: int, stride: float = _STRIDE) -> int:
    """Return the most streams that do not stutter, to a tenth.

    Args:
        p99: what is added with so many streams, in seconds; asked again where it is too much.
        guess: where to begin.
        stride: the first step up or down, as a factor; the next are longer.
    """
    carried = broke = 0
    streams = guess
    while True:
        if any(p99(streams) < _MOST_ADDED for _ in range(_TRIES)):
            carried = streams
        else:
            broke = streams
        if broke and broke <= max(carried + 1, int(carried * _PRECISION)):
            return max(carried, 1)
        if not broke:
            streams = max(carried + 1, int(carried * stride))
        elif carried:
            streams = min(max(round(sqrt(carried * broke)), carried + 1), broke - 1)
        else:
            streams = max(1, int(broke / stride))
        stride = min(stride * stride, _LONGEST_STRIDE)


def _of_the_rig(target: Target, found: Mapping[str, Sequence[float]]) -> Finding:
    """Return what the upstream and the client add by themselves, with as many streams as anybody carried."""
    streams = int(max(max(each) for each in found.values()))
    added = min(added_p99(target, streams) for _ in range(_TRIES))
    return Finding(
        3,
        f"stutter of the rig itself, {streams} streams",
        added / _MOST_ADDED,
        1.0,
        ours=added * 1e3,
        other=_MOST_ADDED * 1e3,
        unit="ms",
        against="the limit",
    )


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


def unlimited(config: dict[str, Any]) -> None:
    """Let a router send as much as it can: what is looked for is not its limits, which stay on."""
    providers = config["providers"]
    for provider in providers.values():
        provider["max_concurrency"] = 100_000
