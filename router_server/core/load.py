"""How busy an engine is: what it said itself, and what our own calls have changed since.

Each upstream that can tell is asked at a low rate, more often while calls flow; between two answers the
router's own count of running calls moves the estimate, so that a burst does not all go to whoever was least
busy a second ago. Refuses to know how an engine is asked, and to decide who gets a call.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from router_server.core.errors import UpstreamError
from router_server.core.provider import EngineLoad, LoadPace, ReportsLoad
from router_server.core.tending import Tending

_log = logging.getLogger(__name__)

_LONGEST_ANSWER = 5.0
"""Seconds after which an engine that does not tell its load is taken for one that cannot."""


@dataclass(eq=False, slots=True)
class Load:
    """What is known of one engine's load.

    Attributes:
        engine: its last word; None where nothing is known, or no longer.
        up: whether it answered when it was last asked; None where it was not, or cannot tell.
    """

    engine: EngineLoad | None = None
    up: bool | None = None
    _own_then: int = 0
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, engine: EngineLoad | None, own: int) -> None:
        """Take note of its word, None where it has none; ``own`` is how many calls of ours it has now."""
        self.engine = engine
        self.up = None if engine is None else True
        self._own_then = own

    def silent(self) -> None:
        """It does not answer: its last word counts no longer."""
        self.engine = None
        self.up = False

    def estimate(self, own: int) -> float:
        """Return about how many requests it has now, those of other clients included."""
        if self.engine is None:
            return own
        return own + max(0.0, self.engine.running + self.engine.waiting - self._own_then)

    @property
    def crowded(self) -> bool:
        """Tell whether it is as good as full, or silent."""
        return self.up is False or (self.engine is not None and self.engine.crowded)

    @property
    def cache_used(self) -> float:
        """The share of its cache that is in use, 0 where nothing is known."""
        return 0.0 if self.engine is None else self.engine.cache_used

    def consulted(self) -> None:
        """Somebody chooses by it, so that it is worth asking for again soon."""
        self._wanted.set()

    async def next_turn(self, pace: LoadPace, *, busy: bool) -> None:
        """Wait until the engine is to be asked again: a busy pause, or up to an idle one if nobody cares."""
        self._wanted.clear()
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 - workers and replicas do not ask in step
        await asyncio.sleep(pace.busy * jitter)
        if busy:
            return
        try:
            async with asyncio.timeout(max(0.0, pace.idle - pace.busy) * jitter):
                await self._wanted.wait()
        except TimeoutError:
            return


class Engine(Protocol):
    """An upstream, as far as its load goes."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def inflight(self) -> int:
        """How many calls of ours it has."""

    @property
    def load(self) -> Load:
        """What is known."""


E = TypeVar("E", bound=Engine)


class LoadWatch(Generic[E]):
    """Asks engines for their load.

    Args:
        engines: each with what can be asked.
        changed: told of an engine that falls silent, or answers again: a health check will tell more.
    """

    def __init__(self, engines: Sequence[tuple[E, ReportsLoad]], changed: Callable[[E], None]) -> None:
        self._changed = changed
        self._engines: dict[E, ReportsLoad] = {}
        self._tending = Tending(self._watch, lambda engine: f"load {engine.name}")
        self.change(engines)

    def change(self, engines: Sequence[tuple[E, ReportsLoad]]) -> None:
        """Ask these engines from now on; those that were asked before are asked on."""
        self._engines = {engine: asked for engine, asked in engines if asked.load_pace is not None}
        self._tending.change(self._engines)

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._tending.run()

    async def ask(self, engine: E, asked: ReportsLoad) -> None:
        """Ask one engine once."""
        before = engine.load.up
        try:
            async with asyncio.timeout(_LONGEST_ANSWER):
                engine.load.told(await asked.load(), engine.inflight)
        except (UpstreamError, TimeoutError):
            engine.load.silent()
        except Exception:  # noqa: BLE001 - a kind is someone else's code; the others are asked on
            _log.exception("The provider %s fails to tell its load.", engine.name)
            engine.load.silent()
        if engine.load.up is not before and before is not None:
            _tell(engine)
            self._changed(engine)

    async def _watch(self, engine: E) -> None:
        asked = self._engines[engine]
        pace = asked.load_pace or LoadPace()
        while True:
            await self.ask(engine, asked)
            await engine.load.next_turn(pace, busy=engine.inflight > 0)


def _tell(engine: Engine) -> None:
    if engine.load.up is False:
        _log.warning("The engine %s has fallen silent; others are asked first.", engine.name)
    else:
        _log.info("The engine %s answers again.", engine.name)
