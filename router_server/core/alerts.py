"""Who tells people what, and once: of several replicas that see the same, one speaks.

Whatever it is about has a key. The first to raise a key tells, nobody else does until it is cleared, and the
first to clear it tells that. While shared values are gone each replica tells by itself: twice is better than
never. Refuses to know how people are told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from router_server.core.shared import SharedValues, UnreachableError

Tell = Callable[[str], Awaitable[None]]
"""Tells people; raises nothing but for cancellation."""

_log = logging.getLogger(__name__)

_LIFE = 7 * 86_400.0
"""Seconds after which a key is forgotten that nobody has cleared: its replica is gone with it."""


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

    async def raised(self, about: str, text: str, life: float = _LIFE) -> None:
        """Tell ``text``, unless ``about`` was raised less than ``life`` seconds ago and not cleared since."""
        try:
            first = await self._values.put(self._name_key(about), b"1", life, only_if_absent=True)
        except UnreachableError:
            first = True
        if first:
            _log.warning("Alert: %s", text)
            await self._tell(text)

    async def cleared(self, about: str, text: str) -> None:
        """Tell ``text``, unless somebody has cleared ``about`` already."""
        try:
            first = await self._values.drop(self._name_key(about)) > 0
        except UnreachableError:
            first = True
        if first:
            _log.warning("Alert: %s", text)
            await self._tell(text)
