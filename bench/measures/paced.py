"""3: streams at a pace of 20 ms per token: how many one core carries before they stutter.

A stream stutters where the gap between two tokens grows on the way: the 99th percentile of what is added
to a gap stays under 20 ms. A server that falls behind adds little to each gap, and more without end, so that
streams must keep the pace as well. The search halves the distance between the most that did not stutter and
the fewest that did, until a tenth is left. A stutter without falling behind counts where it comes twice:
what else the machine does for a moment spoils one run alone. The upstream and the client must carry as many
by themselves, which is shown too.

LiteLLM's streams are longer. It carries a tenth as many, so that in the same time fewer tokens are seen, and
collects its garbage for half a second every three: a look of one second may fall in between. Longer streams
are the harder test, for who falls behind slowly is found out: the router carries 200 of them where it carries
240 of the short ones. So a thorough run has long streams for everyone.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt
from statistics import median
from typing import Any, Final

from bench.rig.asking import run
from bench.rig.bench import BARE, LITELLM, ROUTER, Bench
from bench.rig.clients import client
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.load import Target
from bench.rig.process import BenchError
from bench.rig.subjects import LONG_PACED_TOKENS, PACED_TOKENS, Subject, direct, paced

_STAMP: Final = re.compile(rb" @(\d+);")
_MOST_ADDED: Final = 0.020
_PACE: Final = 0.020
_START_SECONDS: Final = 1.0
"""All streams begin within this time, evenly."""

_SETTLED: Final = 1.25
"""What is sent from here on counts, until the first stream ends: all are running."""

_PATIENCE: Final = 1.0
"""By how much the last stream may be late."""

_REST: Final = 0.25
_IDLE: Final = 0.1
_WHAT: Final = "paced streams per core"
_PRECISION: Final = 1.1
_STRIDE: Final = 1.2
_LONGEST_STRIDE: Final = 2.0
_TRIES: Final = 2
_FIRST_GUESS: Final = {ROUTER: 320, BARE: 360, LITELLM: 28}


@dataclass(frozen=True, slots=True)
class Stutter:
    """What was added to streams on their way, in seconds.

    Attributes:
        added: to the gap between two tokens, the 99th percentile.
        behind: to the time of a stream while it counts, the median.
    """

    added: float
    behind: float

    @property
    def smooth(self) -> bool:
        """Whether the server carried the streams."""
        return self.added < _MOST_ADDED and self.behind < _MOST_ADDED


_BROKEN: Final = Stutter(inf, inf)


class _Gaps:
    """Takes one stream, and notes what was added to the gaps between its tokens.

    Tokens that arrive together are one gap, from the last one before them to the first of them. Counted one
    by one, those behind the first would seem to have come early, and the more came at once the better.
    What counts is when a token was due: an upstream that sends it later adds to a gap as any other does.
    """

    __slots__ = (
        "_arrived",
        "_due",
        "_late",
        "_late_at_first",
        "_since",
        "_until",
        "added",
        "done",
        "error",
        "over",
    )

    def __init__(self, since: float, until: float, added: list[float], done: Callable[[], None]) -> None:
        self._since, self._until = since, until
        self._arrived = self._due = self._late = 0.0
        self._late_at_first: float | None = None
        self.added = added
        self.done = done
        self.over = False
        self.error: str | None = None

    @property
    def behind(self) -> float:
        """How much later its tokens came at the end than at the beginning; infinite: it was not running."""
        return inf if self._late_at_first is None else self._late - self._late_at_first

    def data(self, chunk: bytes) -> None:
        now = time.monotonic()
        stamps = _STAMP.findall(chunk)
        if not stamps:
            return
        due = int(stamps[0]) * 1e-9
        if self._arrived and self._since <= due < self._until:
            self.added.append((now - self._arrived) - (due - self._due))
            self._late = now - due
            if self._late_at_first is None:
                self._late_at_first = self._late
        self._arrived, self._due = now, int(stamps[-1]) * 1e-9

    def end(self, error: str | None) -> None:
        self.over, self.error = True, error
        self.done()

    def give_up(self) -> None:
        if not self.over:
            self.error = "not over in time"


def measure(bench: Bench) -> list[Finding]:
    """Return how many streams at once."""
    tokens = LONG_PACED_TOKENS if bench.effort.thorough else PACED_TOKENS
    traffic = paced(tokens)
    upstream = f"{bench.paced}/{traffic.name}/v1"
    router, bare = bench.new_router({traffic.name: upstream}, unlimited), bench.new_bare(upstream)
    tried: dict[str, Callable[[int], Stutter]] = {
        ROUTER: _tried(router, tokens),
        BARE: _tried(bare, tokens),
    }
    peers = bench.peers()
    if LITELLM in peers:
        tried[LITELLM] = _tried(peers[LITELLM], LONG_PACED_TOKENS)
    found: dict[str, list[float]] = {name: [] for name in tried}

    def search(name: str) -> None:
        before = found[name]
        guess, stride = (int(before[-1]), _PRECISION) if before else (_FIRST_GUESS[name], _STRIDE)
        before.append(float(most_streams(partial(_carried, tried[name]), guess, stride)))

    interleaved({name: partial(search, name) for name in tried}, bench.effort.repeats)
    results = [compared(3, _WHAT, found, ROUTER, BARE, unit="", bound=0.7, at_least=True)]
    if LITELLM in found:
        results.append(compared(3, _WHAT, found, ROUTER, LITELLM, unit="", bound=10.0, at_least=True))
    return [*results, _of_the_rig(direct(bench.folder, upstream, traffic), tokens, found)]


def _tried(subject: Subject, tokens: int) -> Callable[[int], Stutter]:
    return partial(stutter, subject.target(paced(tokens)), tokens)


def most_streams(carried: Callable[[int], bool], guess: int, stride: float = _STRIDE) -> int:
    """Return the most streams that do not stutter, to a tenth.

    Args:
        carried: whether so many do not.
        guess: where to begin.
        stride: the first step up or down, as a factor; the next are longer.
    """
    most = broke = 0
    streams = guess
    while True:
        if carried(streams):
            most = streams
        else:
            broke = streams
        if broke and broke <= max(most + 1, int(most * _PRECISION)):
            return max(most, 1)
        if not broke:
            streams = max(most + 1, int(most * stride))
        elif most:
            streams = min(max(round(sqrt(most * broke)), most + 1), broke - 1)
        else:
            streams = max(1, int(broke / stride))
        stride = min(stride * stride, _LONGEST_STRIDE)


def _of_the_rig(target: Target, tokens: int, found: Mapping[str, Sequence[float]]) -> Finding:
    """Return what the upstream and the client add by themselves, with as many streams as anybody carried."""
    streams = int(max(max(each) for each in found.values()))
    added = min(stutter(target, tokens, streams).added for _ in range(_TRIES))
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


def _carried(tried: Callable[[int], Stutter], streams: int) -> bool:
    return is_smooth(partial(tried, streams))


def is_smooth(tried: Callable[[], Stutter]) -> bool:
    """Return whether streams do not stutter; who does not fall behind is tried again, once."""
    for _ in range(_TRIES):
        found = tried()
        if found.smooth:
            return True
        if found.behind >= _MOST_ADDED:
            return False
    return False


def stutter(target: Target, tokens: int, streams: int) -> Stutter:
    """Return what is added to so many streams of so many tokens; without end where one fails, or comes late.

    Raises:
        BenchError: the only stream failed.
    """
    sinks = run(_streams(target, streams, tokens))
    _rest(target)
    failed = [sink.error for sink in sinks if sink.error]
    if failed and streams == 1:
        raise BenchError(f"a stream failed: {failed[0]}")
    added = sorted(sinks[0].added)
    if failed or not added:
        return _BROKEN
    return Stutter(added[int(len(added) * 0.99)], median(sink.behind for sink in sinks))


async def _streams(target: Target, streams: int, tokens: int) -> Sequence[_Gaps]:
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
        end = begin + tokens * _PACE
        sinks = [_Gaps(begin + _SETTLED, end, added, done) for _ in range(streams)]
        for number, sink in enumerate(sinks):
            await asyncio.sleep(begin + _START_SECONDS * number / streams - time.monotonic())
            server.ask(body, sink)
        with suppress(TimeoutError):
            async with asyncio.timeout(end + _START_SECONDS + _PATIENCE - time.monotonic()):
                await over.wait()
    for sink in sinks:
        sink.give_up()
    return sinks


def _rest(target: Target) -> None:
    """Wait until the server has nothing left to do: of streams that were given up, it has."""
    if target.process is None:
        return
    busy = _REST
    while busy > _REST * _IDLE:
        before = target.process.cpu_seconds()
        time.sleep(_REST)
        busy = target.process.cpu_seconds() - before


def unlimited(config: dict[str, Any]) -> None:
    """Let a router send as much as it can: what is looked for is not its limits, which stay on."""
    providers = config["providers"]
    for provider in providers.values():
        provider["max_concurrency"] = 100_000
