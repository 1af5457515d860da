"""The API keys as they are now: read again whenever the place that keeps them says so.

What cannot be read any more changes nothing: the keys that were known stay, and the log says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from router_server.auth.api_keys import KeyRing
from router_server.auth.key_set import Keys, KeysError
from router_server.core.principal import Principal
from router_server.core.shared import UnreachableError

_log = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds in which a change is seen."""


class KeyPlace(Protocol):
    """Where keys are kept."""

    async def version(self) -> Any:
        """Return what is another once the keys have changed."""

    async def keys(self) -> Keys:
        """Return the keys."""


class LiveKeys:
    """The keys of some places, and of the configuration.

    Args:
        fixed: those of the configuration.
        places: where the others are kept.
    """

    def __init__(self, fixed: Keys, places: Sequence[KeyPlace]) -> None:
        self._fixed = fixed
        self._known: dict[KeyPlace, Keys] = dict.fromkeys(places, ())
        self._versions: dict[KeyPlace, Any] = {}
        self._complaints: dict[KeyPlace, str] = {}
        self._ring = KeyRing(fixed)

    def find(self, shown: str) -> Principal:
        """Return whose key it is.

        Raises:
            RouterError: UNAUTHENTICATED.
        """
        return self._ring.find(shown)

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while self._known:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Look for changes once."""
        changed = [await self._changed(place) for place in self._known]
        if any(changed):
            self._ring = KeyRing((*self._fixed, *(key for keys in self._known.values() for key in keys)))
            _log.info("%d API keys are known now.", len(self._ring))

    async def _changed(self, place: KeyPlace) -> bool:
        try:
            version = await place.version()
            if place in self._versions and self._versions[place] == version:
                return False
            keys = await place.keys()
        except UnreachableError:
            # The state says so itself, in the log, in health and in metrics.
            return False
        except KeysError as error:
            self._complain(place, str(error))
            return False
        self._versions[place] = version
        self._complaints.pop(place, None)
        self._known[place] = keys
        return True

    def _complain(self, place: KeyPlace, problem: str) -> None:
        if self._complaints.get(place) != problem:
            self._complaints[place] = problem
            _log.error("The API keys stay as they were: %s", problem)
