"""How often users were allotted a target, and how often they were moved to another one.

A tally and nothing else: refuses to know why a user moves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Moves:
    """What became of one route's users so far, in this process.

    Attributes:
        route: its name.
        allotted: users who were given a home, by that.
        moved: users whose calls went elsewhere from then on, by where they came from and where they went: to
            a stand-in, from one stand-in to another, or back home.
    """

    route: str = ""
    allotted: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
