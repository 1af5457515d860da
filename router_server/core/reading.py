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
from router_server.core.engine_view import EngineView
from router_server.core.measures import Measures
from router_server.core.provider import Take
from router_server.core.types import StreamItem

Reads = AsyncGenerator[Sequence[StreamItem], Take | None]
Sink = Callable[[Sequence[StreamItem]], Awaitable[Take | None]]
"""Takes one read; returns who takes the following ones at once, None where it is to be awaited again."""


class Reading(Cutoff):
    """Reads one stream, within the first-token and idle limits.

    The limits run only while the upstream is waited for: a slow sink is not a slow upstream.

    Args:
        timers: the attempt's.
        first: the limit on the first token.
        deadline: of the call.
        measures: where moments are noted.
        engine: whose progress every read is, where one is watched.

    Attributes:
        since: the moment from which the upstream is waited for.
        idle: the moment until which it is; 0 before the first token.
    """

    __slots__ = ("_deadline", "_engine", "_measures", "_now", "_timers", "idle", "since")

    def __init__(
        self,
        timers: Timers,
        first: Timer,
        deadline: Deadline,
        measures: Measures,
        engine: EngineView | None,
    ) -> None:
        super().__init__(first.limit)
        self._now = asyncio.get_running_loop().time
        self._timers = timers
        self._deadline = deadline
        self._measures = measures
        self._engine = engine
        self.since = self._now()
        self.idle = 0.0

    async def run(self, stream: Reads, sink: Sink, began: Callable[[], None]) -> None:
        """Hand everything that ``stream`` yields to ``sink``; call ``began`` once the first of it is here.

        Raises:
            TimeoutError: a limit has ended it, where this is due.
            UpstreamError: what the stream raises.
        """
        take: Take | None = None
        with self:
            try:
                while True:
                    items = await stream.asend(take)
                    self.reschedule(None)
                    self.since = self._measures.last_token_at = self._now()
                    if self._engine is not None:
                        self._engine.progress += 1
                    if not self.idle:
                        self._measures.began(self.since)
                        began()
                    taker = await sink(items)
                    take = None if taker is None else partial(self._take, taker)
                    self.since = self._now()
                    self.reschedule(self._until())
            except StopAsyncIteration:
                return

    def _take(self, taker: Take, items: Sequence[StreamItem]) -> bool:
        self.since = self._measures.last_token_at = self._now()
        if self._engine is not None:
            self._engine.progress += 1
        more = taker(items)
        if self._measures.finish_reason is not None:
            self.reschedule(self._until())
        return more

    def put_off(self, when: float) -> float:
        """Return the moment until which the upstream is waited for: it is not noted for each read."""
        return self._until() if self.idle else when

    def _until(self) -> float:
        self.idle = self._timers.idle(self.since, finished=self._measures.finish_reason is not None)
        return min(self.idle, self._deadline.at)
