"""One upstream's stream while it is read: who waits for how long, and who is handed what.

The first reads are awaited one by one, since more may hang on them than can be done at once: who wins a race,
whether there is room. Then the provider hands over what comes with nobody waked for it, which halves what a
token costs, until it is told to wait again. Refuses to know what is read, and what a late upstream means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

from router_server.core.cutoff import Cutoff
from router_server.core.deadline import Deadline, Timer, Timers
from router_server.core.measures import Measures
from router_server.core.provider import Take
from router_server.core.types import StreamItem

Reads = AsyncGenerator[Sequence[StreamItem], Take | None]
Sink = Callable[[Sequence[StreamItem]], Awaitable[Take | None]]
"""Takes one read; returns who takes the following ones at once, None where it is to be awaited again."""


class Reading:
    """Reads one stream, within the first-token and idle limits.

    The limits run only while the upstream is waited for: a slow sink is not a slow upstream.

    Args:
        timers: the attempt's.
        first: the limit on the first token.
        deadline: of the call.
        measures: where moments are noted.
        saw: called for every read, with the moment.

    Attributes:
        cutoff: due where a limit has ended it.
        since: the moment from which the upstream is waited for.
        idle: the moment until which it is; 0 before the first token.
    """

    __slots__ = ("_deadline", "_measures", "_now", "_saw", "_timers", "cutoff", "idle", "since")

    def __init__(
        self,
        timers: Timers,
        first: Timer,
        deadline: Deadline,
        measures: Measures,
        saw: Callable[[float], None],
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._timers = timers
        self._deadline = deadline
        self._measures = measures
        self._saw = saw
        self.cutoff = Cutoff(first.limit)
        self.since = self._now()
        self.idle = 0.0

    async def run(self, stream: Reads, sink: Sink) -> None:
        """Hand everything that ``stream`` yields to ``sink``.

        Raises:
            TimeoutError: a limit has ended it, where the cutoff is due.
            UpstreamError: what the stream raises.
        """
        take: Take | None = None
        with self.cutoff:
            try:
                while True:
                    items = await stream.asend(take)
                    self.cutoff.reschedule(None)
                    self._saw(self._now())
                    taker = await sink(items)
                    take = None if taker is None else partial(self._take, taker)
                    self._wait(self._now())
            except StopAsyncIteration:
                return

    def _take(self, taker: Take, items: Sequence[StreamItem]) -> bool:
        now = self._now()
        self._saw(now)
        more = taker(items)
        self._wait(now)
        return more

    def _wait(self, since: float) -> None:
        self.since = since
        self.idle = idle = self._timers.idle(since, finished=self._measures.finish_reason is not None)
        deadline = self._deadline.at
        self.cutoff.reschedule(idle if idle < deadline else deadline)  # noqa: FURB136 - ten times as quick
