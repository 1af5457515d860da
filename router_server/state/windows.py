"""Limits that replicas share: exact while the shared state answers, each process's part of them while not.

Refuses to know what a limit is for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Final

from router_server.core.quotas import CONCURRENCY, REQUESTS, TOKENS, QuotaExceededError, Standing, Subject
from router_server.core.shared import UnreachableError
from router_server.state.opening import State
from router_server.state.store import Argument, Reply, key
from router_server.state.window_steps import PLACES, RESERVE, SETTLE

_SORTS: Final = {REQUESTS: "requests", TOKENS: "tokens", CONCURRENCY: PLACES}
_LAST_SETTLEMENTS: Final = 1.0
"""Seconds that a stop waits for what is still being settled."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit of one subject, and how much of it is asked."""

    subject: Subject
    what: str
    limit: int
    amount: int

    @property
    def key(self) -> str:
        return key("limits", self.subject.kind, self.subject.name, _SORTS[self.what])

    @property
    def resource(self) -> str:
        return f"{self.subject.kind} {self.what}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was reserved, and where: ``alone`` in this process."""

    quotas: SharedQuotas
    limits: tuple[_Limit, ...]
    lease: str
    second: int
    standing: Standing | None
    given_back: Standing | None
    alone: bool

    def settle(self, *, requests: int, tokens: int) -> None:
        """Put what was used in place of what was taken, and give the places back. Does not wait."""
        self.quotas.settle(self, {REQUESTS: requests, TOKENS: tokens, CONCURRENCY: 0})


class SharedQuotas:
    """Counts in the shared state, or in this process while that is gone.

    Args:
        state: where.
        among: how many processes share the limits where no state is shared.
    """

    def __init__(self, state: State, among: int = 1) -> None:
        self._state = state
        self._among = among
        self._settling: set[asyncio.Task[None]] = set()

    async def reserve(self, subjects: Sequence[Subject], *, prompt: int, tokens: int, life: float) -> Taken:
        """Take one request, ``tokens`` and one place of every subject; of all of them or of none.

        Raises:
            QuotaExceededError: nothing was taken.
        """
        lease = uuid.uuid4().hex
        if self._state.distributed:
            limits = _limits(subjects, prompt, tokens, 1)
            try:
                reply = await self._state.shared.run(RESERVE, *_asking(limits, lease, life))
            except BaseException as error:
                # It may have been counted all the same: places are given back, windows pass by themselves.
                self._give_back(tuple(one for one in limits if one.what == CONCURRENCY), lease)
                if not isinstance(error, UnreachableError):
                    raise
            else:
                return self._taken(limits, lease, reply, alone=False)
        limits = _limits(subjects, prompt, tokens, max(self._among, self._state.processes))
        reply = self._state.local.run_now(RESERVE, *_asking(limits, lease, life))
        return self._taken(limits, lease, reply, alone=True)

    def settle(self, taken: Taken, used: Mapping[str, int]) -> None:
        """Put what was used, by what is limited, in place of what was taken."""
        arguments: list[Argument] = [taken.lease, taken.second]
        for one in taken.limits:
            arguments += (_SORTS[one.what], used[one.what] - one.amount)
        keys = [one.key for one in taken.limits]
        if taken.alone:
            self._state.local.run_now(SETTLE, keys, arguments)
        else:
            self._in_background(keys, arguments)

    async def close(self) -> None:
        """Wait for what is still being settled, but not for long."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=_LAST_SETTLEMENTS)

    def _taken(self, limits: tuple[_Limit, ...], lease: str, reply: Reply, *, alone: bool) -> Taken:
        refused, wait, second, *parts = map(int, reply)
        standings = [
            Standing(one.resource, one.limit, remaining, reset / 1_000)
            for one, remaining, reset in zip(limits, parts[::2], parts[1::2], strict=True)
        ]
        if refused >= 0:
            raise QuotaExceededError(standings[refused], wait / 1_000)
        windows = [
            (now, one.amount) for now, one in zip(standings, limits, strict=True) if one.what != CONCURRENCY
        ]
        left = _tightest(now for now, _amount in windows)
        given_back = _tightest(_without(amount, now) for now, amount in windows)
        return Taken(self, limits, lease, second, left, given_back, alone)

    def _give_back(self, places: tuple[_Limit, ...], lease: str) -> None:
        if places:
            parts = [part for _one in places for part in (PLACES, 0)]
            self._in_background([one.key for one in places], [lease, 0, *parts])

    def _in_background(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        # With a patience of its own: that of the call may be used up, and nobody waits for this.
        task = asyncio.create_task(self._settle(keys, arguments), context=Context())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        try:
            await self._state.shared.run(SETTLE, keys, arguments)
        except UnreachableError:
            # What was reserved stays reserved until its time is over.
            return


def _tightest(windows: Iterable[Standing]) -> Standing | None:
    return min(windows, key=lambda one: one.remaining / one.limit, default=None)


def _without(amount: int, now: Standing) -> Standing:
    remaining = min(now.limit, now.remaining + amount)
    return replace(now, remaining=remaining, reset=now.reset if remaining < now.limit else 0.0)


def _limits(subjects: Sequence[Subject], prompt: int, tokens: int, among: int) -> tuple[_Limit, ...]:
    found: list[_Limit] = []
    for subject in subjects:
        quota = subject.quota
        asked = ((REQUESTS, quota.requests_per_minute, 1), (TOKENS, quota.tokens_per_minute, tokens))
        for what, whole, amount in (*asked, (CONCURRENCY, quota.max_concurrency, 1)):
            if whole is None:
                continue
            limit = max(1, whole // among)
            if what == TOKENS and prompt > whole:
                raise QuotaExceededError(Standing(f"{subject.kind} {what}", whole, 0, 0.0), None)
            # An estimate that is more than there ever is must not keep a call out for ever.
            found.append(_Limit(subject, what, limit, min(amount, limit)))
    return tuple(found)


def _asking(limits: Sequence[_Limit], lease: str, life: float) -> tuple[list[str], list[Argument]]:
    arguments: list[Argument] = [lease, max(1, round(life * 1_000))]
    for one in limits:
        arguments += (_SORTS[one.what], one.limit, one.amount)
    return [one.key for one in limits], arguments
