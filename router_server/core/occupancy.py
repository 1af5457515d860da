"""How busy something is that takes calls: the shape alone. Refuses to know what it is."""

from __future__ import annotations

from typing import Protocol


class Occupancy(Protocol):
    """How busy a target is."""

    @property
    def has_room(self) -> bool:
        """Tell whether a call would be given a place at once."""

    @property
    def is_full(self) -> bool:
        """Tell whether a call could not even wait for a place."""

    @property
    def load(self) -> int:
        """How many calls it serves, and how many wait for it."""

    @property
    def fullness(self) -> float:
        """Calls that run and wait for each place there is: 0 is idle, above 1 calls wait."""
