"""Whether the shared state is worth asking: not after it failed, until a probe in the background passes.

Refuses to know what is asked, and of whom.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

SLOW_IN_A_ROW = 3
"""Answers that come too late before nobody asks any more: a single one may be our own loop's fault."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
"""Seconds between two probes: doubling, so that recovery is seen within about a second."""


class Circuit:
    """Closed while the state answers; open, which is `degraded`, while it does not.

    Args:
        probe: asks once, and raises where the answer is not as it should be.
        changed: called after each change.
        cause_of: says of what was raised why nobody can be asked.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
        cause_of: Callable[[BaseException], str],
    ) -> None:
        self._probe = probe
        self._changed = changed
        self._cause_of = cause_of
        self._slow = 0
        self._opened = asyncio.Event()

    @property
    def degraded(self) -> bool:
        """Tell whether nobody is to ask."""
        return self._opened.is_set()

    def answered(self) -> None:
        """An answer came in time."""
        self._slow = 0

    def slow(self) -> None:
        """An answer did not come in time."""
        self._slow += 1
        if self._slow >= SLOW_IN_A_ROW:
            self.failed("it answers too slowly")

    def failed(self, why: str) -> None:
        """Nobody is there, or it cannot do what is asked."""
        if self.degraded:
            return
        self._opened.set()
        _log.warning(
            "The shared state is not usable (%s): this process goes on by itself, and probes it.", why
        )
        self._changed()

    async def run(self) -> None:
        """Probe whenever that is needed, until cancelled."""
        while True:
            await self._opened.wait()
            pause = _FIRST_PAUSE
            while not await self.recovered():
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - replicas do not probe in step
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def recovered(self) -> bool:
        """Probe once, and close where that passes."""
        try:
            await self._probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            self.failed(self._cause_of(error))
            return False
        self._slow = 0
        if self.degraded:
            self._opened.clear()
            _log.warning("The shared state answers again: replicas share it from now on.")
            self._changed()
        return True
