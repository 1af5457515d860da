"""Who tells people what, and once: of several replicas that see the same, one speaks.

Whatever it is about has a key. The first to raise a key tells, nobody else does until it is cleared, and the
first to clear it tells that. While shared values are gone each replica tells by itself: twice is better than
never. Refuses to know how people are told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from router_server.core.shared import SharedValues, UnreachableError

Tell = Callable[[str], Awaitable[None]]
"""Tells people; raises nothing but for cancellation."""

_log = logging.getLogger(__name__)

LIFE = 300.0
"""Seconds after which a key is forgotten that nobody upholds or clears: whoever raised it is gone."""


class Alerts:
    """What people are told.

    Args:
        values: what replicas share, or this process's own.
        name_key: from what it is about to the key in ``values``.
        tell: reaches people.
    """

    def __init__(self, values: SharedValues, name_key: Callable[[str], str], tell: Tell) -> None:
        self._values = values
        self._name_key = name_key
        self._tell = tell

    async def raised(self, about: str, text: str, life: float = LIFE) -> None:
        """Tell ``text``, unless ``about`` was raised less than ``life`` seconds ago and not cleared since."""
        try:
            first = await self._values.put(self._name_key(about), b"1", life, only_if_absent=True)
        except UnreachableError:
            first = True
        if first:
            _log.warning("Alert: %s", text)
            await self._tell(text)

    async def upheld(self, about: str, life: float = LIFE) -> None:
        """Let ``about`` be remembered for ``life`` seconds from now on, if it is still raised."""
        name = self._name_key(about)
        with suppress(UnreachableError):
            if await self._values.get(name) is not None:
                # Cleared in this very moment it is remembered for once ``life``, which nobody prolongs.
                await self._values.put(name, b"1", life)

    async def cleared(self, about: str, text: str) -> None:
        """Tell ``text``, unless somebody has cleared ``about`` already."""
        try:
            first = await self._values.drop(self._name_key(about)) > 0
        except UnreachableError:
            first = True
        if first:
            _log.warning("Alert: %s", text)
            await self._tell(text)
