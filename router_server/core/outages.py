"""When a target counts as down, and as back: so that people are told of outages and not of every hiccup.

Pure, clock injected. Refuses to tell anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto


class Turn(Enum):
    """What has become of a target."""

    DOWN = auto()
    BACK = auto()


@dataclass(slots=True)
class _Target:
    serving: bool = True
    since: float = 0.0
    told_down: bool = False


class Outages:
    """Watches targets.

    Args:
        patience: seconds for which a target must be out of service, or in service again, before it counts.
        clock: monotonic seconds.

    Attributes:
        patience: may change at any time.
    """

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self.patience = patience
        self._clock = clock
        self._targets: dict[str, _Target] = {}

    @property
    def down(self) -> list[str]:
        """The targets that were told down and not back."""
        return [name for name, target in self._targets.items() if target.told_down]

    def without(self, names: Collection[str]) -> list[str]:
        """Forget all targets but ``names``; return those that were told down."""
        gone = [name for name in self._targets if name not in names]
        return [name for name in gone if self._targets.pop(name).told_down]

    def seen(self, name: str, *, serving: bool | None) -> Turn | None:
        """Take note of how a target is now, None: nobody knows; return what that makes of it, once a turn."""
        now = self._clock()
        target = self._targets.setdefault(name, _Target(since=now))
        if serving is not None and serving != target.serving:
            target.serving, target.since = serving, now
        if now - target.since < self.patience or target.told_down is not target.serving:
            return None
        target.told_down = not target.serving
        return Turn.BACK if target.serving else Turn.DOWN
