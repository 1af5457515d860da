"""One attempt, or two at the same answer: the second begins when the first is late, and one answers.

Each runs in a task of its own. The first to answer calls the other off and waits until that has given back
all it held, before a word of the answer goes on: so whoever reads has one writer, and the trail is in
order. Refuses to know what an answer is (whoever asks says `won`), and when hedging is due (`Journey` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar

from router_server.core.attempt import Attempt
from router_server.core.errors import Outcome, UpstreamError
from router_server.core.hedge import HEDGE_LOST
from router_server.core.journey import Journey

T = TypeVar("T")


class Race:
    """Runs an attempt, and a hedge beside it where the journey has one.

    Args:
        journey: gives the hedge, and is told of what fails beside the outcome.
        attempt: the one that is due.
        patience: seconds from the attempt's permit after which a hedge is due; None: never.

    Attributes:
        leader: the attempt whose outcome is that of `run`.
        winner: the one that answers, once one does.
    """

    def __init__(self, journey: Journey, attempt: Attempt, patience: float | None) -> None:
        self.leader = attempt
        self.winner: Attempt | None = None
        self._journey = journey
        self._first = attempt
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[Attempt, asyncio.Task[Any]] = {}

    async def run(self, work: Callable[[Attempt], Awaitable[T]]) -> T:
        """Return what ``work`` returns for the attempt that answers, done while its permit is held.

        Raises:
            UpstreamError: the leader failed; the journey is to be told. Of the other's failure it was.
        """

        async def answer(attempt: Attempt) -> T:
            result = await work(attempt)
            await self.won(attempt)
            return result

        if self._patience is None:
            return await paid(self._first, answer)
        try:
            return await self._raced(answer, self._patience)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await _ended(self._tasks.values())

    async def won(self, attempt: Attempt) -> None:
        """``attempt`` answers: call the other off. May be said again.

        Raises:
            UpstreamError: CANCELLED, where the other was quicker.
        """
        if self.winner is attempt:
            return
        if self.winner is not None:
            raise UpstreamError(Outcome.CANCELLED, HEDGE_LOST)
        self.winner = self.leader = attempt
        if attempt is self._first or self._first in self._tasks:
            # Where the hedge was quicker, the time until now is less than the first would have taken, and
            # more than was waited for: it stays on its side of the percentile, which is all that counts.
            self._journey.timed(self._first)
        if self._tasks:
            await self._call_off(attempt)
        self._journey.answering(attempt)

    async def _raced(self, answer: Callable[[Attempt], Coroutine[Any, Any, T]], patience: float) -> T:
        loop = asyncio.get_running_loop()
        late = loop.create_future()

        async def watched(attempt: Attempt) -> T:
            self._timer = loop.call_later(patience, late.set_result, None)
            return await answer(attempt)

        first = self._start(self._first, watched)
        await asyncio.wait({first, late}, return_when=asyncio.FIRST_COMPLETED)
        hedge = None if first.done() or self.winner else self._journey.hedge()
        if hedge is None:
            return await first
        second = self._start(hedge, answer)
        done, _running = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        if self.winner is None:
            self._go_on_without(self._first if first in done else hedge)
        last: asyncio.Task[T] = self._tasks[self.leader]
        return await last

    def _start(
        self, attempt: Attempt, answer: Callable[[Attempt], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[T]:
        task = asyncio.create_task(paid(attempt, answer), name=f"attempt of {attempt.target.name}")
        self._tasks[attempt] = task
        return task

    def _go_on_without(self, failed: Attempt) -> None:
        """One failed while the other runs: follow the other, unless the failure ends the call."""
        error = self._tasks[failed].exception()
        (other,) = self._tasks.keys() - {failed}
        of_first = failed is self._first
        if not isinstance(error, UpstreamError) or (of_first and error.ends_call):
            self.leader = failed
            other.lose()
            return
        del self._tasks[failed]
        self.leader = other
        self._journey.failed(failed, error)
        if of_first:
            self._journey.handed_over(other)

    async def _call_off(self, winner: Attempt) -> None:
        losers = {attempt: task for attempt, task in self._tasks.items() if attempt is not winner}
        for loser in losers:
            loser.lose()
        await _ended(losers.values())


def paid(attempt: Attempt, answer: Callable[[Attempt], Awaitable[T]]) -> Coroutine[Any, Any, T]:
    """Run an attempt, on the call's funds where it has any."""
    funds = attempt.call.funds
    return attempt.run(answer) if funds is None else funds.paying(attempt, answer)


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel what runs and wait for it; what it raised has been dealt with, but for a bug."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if task.cancelled() or isinstance(error := task.exception(), UpstreamError | None):
            continue
        if task in running:
            message = "an attempt that was called off failed"
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
