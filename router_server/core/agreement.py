"""What replicas make of each other's breakers: one that opens or closes says so, and one at a time probes.

Each process keeps its own breakers and counts its own calls; only what comes of that is told, a few times a
second and in no call's path. Whoever hears that a breaker was opened opens its own for the rest of that
time. Once that is over, a process with calls to send asks for the right to probe, which one of them gets;
where nobody gets it, because nobody can be asked or whoever has it is gone, each goes on by itself after a
moment's courtesy.

A process that alone cannot reach a target must not take it from all others: if they close what it has
opened, what it opens in the minute after that is its own affair.

Refuses to know where words are kept: a `BreakerBoard` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from router_server.core.breaker import Breaker, BreakerState
from router_server.core.shared import UnreachableError, patient_for

EVERY: Final = 0.25
"""Seconds between two looks at what others say: what one has opened, all have within that and an answer."""

COURTESY: Final = 0.5
"""Seconds for which probes are held back so that one process can be chosen: two looks."""

PROBING_LEASE: Final = 2.0
"""Seconds for which a process has the right to probe, from its last word."""

MUTED: Final = 60.0
"""Seconds for which a process keeps to itself what it opens, after others have closed what it had opened."""

_PATIENCE: Final = 1.0
"""Seconds for an answer: no call waits for it."""


class Word(StrEnum):
    """What is said of a breaker."""

    NOTHING = ""
    OPEN = "open"
    PROBING = "probing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Say:
    """What this process says of a breaker.

    Attributes:
        word: OPEN, CLOSED; PROBING asks for the right to probe.
        lasting: seconds for which that holds.
        reopened: see `Breaker.reopened`.
        seen: the stamp of the last word heard: the right to probe is given only where that is still the last.
    """

    word: Word = Word.NOTHING
    lasting: float = 0.0
    reopened: int = 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """The last word on a breaker, whoever said it.

    Attributes:
        word: what was said.
        stamp: another one for every word.
        left: seconds for which it still holds.
        mine: this process said it.
        reopened: see `Breaker.reopened`.
    """

    word: Word = Word.NOTHING
    stamp: int = 0
    left: float = 0.0
    mine: bool = False
    reopened: int = 0


class BreakerBoard(Protocol):
    """Where processes leave their words for each other."""

    async def exchange(self, says: Mapping[str, Say]) -> Mapping[str, Heard]:
        """Leave what this process says of each target, and return the last word on each, in one step.

        Raises:
            UnreachableError: the shared state is gone or does not answer in time.
        """


@dataclass(slots=True)
class _Known:
    """One breaker, and what was said of it."""

    breaker: Breaker
    told: int
    stamp: int = 0
    opened_here: bool = field(default=False)
    muted_until: float = 0.0
    alone: bool = False
    """It is open in this process only."""

    def say(self, now: float) -> Say:
        """Return what is to be said."""
        breaker, state = self.breaker, self.breaker.state
        if breaker.opinions != self.told:
            self.alone = state is not BreakerState.CLOSED and now < self.muted_until
            if state is BreakerState.CLOSED:
                return Say(Word.CLOSED, seen=self.stamp)
            if state is BreakerState.OPEN and not self.alone:
                return Say(Word.OPEN, breaker.ready_in, breaker.reopened, self.stamp)
        if state is BreakerState.HALF_OPEN and not self.alone and (breaker.wanted or breaker.probing):
            breaker.wanted = False
            return Say(Word.PROBING, PROBING_LEASE, breaker.reopened, self.stamp)
        return Say(seen=self.stamp)

    def hear(self, heard: Heard, opinions: int, now: float) -> None:
        """Go by the last word; ``opinions`` is how many the breaker had when this process spoke."""
        breaker = self.breaker
        breaker.courtesy = 0.0 if self.alone else COURTESY
        if breaker.opinions != opinions:
            return  # it has changed its mind meanwhile, which the next round tells
        self.told = opinions
        new, self.stamp = heard.stamp != self.stamp, heard.stamp
        if self.alone:
            breaker.lead()
        if heard.mine:
            self._confirmed(heard)
        elif heard.word is Word.PROBING:
            self._others_probe(heard.left)
        elif new and heard.word is Word.OPEN and heard.left > 0:
            self.opened_here = self.alone = False
            breaker.heard_open(heard.left, heard.reopened)
        elif new and heard.word is Word.CLOSED:
            self._others_closed(now)

    def by_itself(self) -> None:
        """Nobody can be asked."""
        self.breaker.courtesy = 0.0
        self.breaker.lead()

    def _confirmed(self, heard: Heard) -> None:
        if heard.word is Word.PROBING:
            self.breaker.lead()
        elif not self.alone:
            self.opened_here = heard.word is Word.OPEN

    def _others_probe(self, left: float) -> None:
        if left <= 0 or self.alone:
            return
        if self.breaker.state is BreakerState.CLOSED:
            # It came too late to hear that it was opened.
            self.breaker.heard_open(left, 0)
        self.breaker.follow(left + EVERY)

    def _others_closed(self, now: float) -> None:
        if self.opened_here:
            self.muted_until = now + MUTED
        self.opened_here = False
        if not self.alone:
            self.breaker.heard_closed()


class Agreement:
    """The breakers that this process shares with others.

    Args:
        board: where words are left.
        clock: monotonic seconds, that of the breakers.
    """

    def __init__(self, board: BreakerBoard, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._something = asyncio.Event()

    def change(self, breakers: Iterable[tuple[str, Breaker]]) -> None:
        """Share these breakers from now on, each under a name that all replicas have for it."""
        before = self._known
        self._known = {name: _kept(before.get(name), breaker) for name, breaker in breakers}

    def changed(self) -> None:
        """Look at once: a breaker may have opened or closed."""
        self._something.set()

    async def run(self) -> None:
        """Tell and listen until cancelled."""
        while True:
            self._something.clear()
            await self.round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._something.wait()

    async def round(self) -> None:
        """Tell and listen once."""
        known, now = self._known, self._clock()
        if not known:
            return
        opinions = {name: one.breaker.opinions for name, one in known.items()}
        says = {name: one.say(now) for name, one in known.items()}
        try:
            with patient_for(_PATIENCE):
                heard = await self._board.exchange(says)
        except UnreachableError:
            for one in known.values():
                one.by_itself()
            return
        for name, one in known.items():
            one.hear(heard[name], opinions[name], self._clock())


def _kept(before: _Known | None, breaker: Breaker) -> _Known:
    if before is not None and before.breaker is breaker:
        return before
    # What it has decided before is told, unless it was made this moment.
    return _Known(breaker, told=0)
