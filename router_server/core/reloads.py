"""What came of reading the configuration again: for metrics and health. Refuses to know who asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Reloads:
    """Since the start.

    Attributes:
        taken: how often a configuration was taken into use, or found to be the one in use.
        refused: how often one was refused.
        last_ok: whether the last one was taken; True where there was none yet.
    """

    taken: int = 0
    refused: int = 0
    last_ok: bool = True

    def noted(self, *, ok: bool) -> None:
        """Take note of one."""
        self.taken += ok
        self.refused += not ok
        self.last_ok = ok
