"""Whose home a target becomes: by shares, or as the route's order or price says; then by load and by price.

Refuses to know users, and to remember who lives where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from router_server.core.occupancy import Occupancy
from router_server.core.plan import Candidate, Demand, Strategy

_DUST = 1e-9
"""Of a user: what sums of shares are wrong by."""

_FAR = 64
"""Turns that are looked ahead: where shares are tiny, a deadline is far, and less choice is no mistake."""


class Homes(Protocol):
    """Who may be a user's home, and who is the next user's."""

    @property
    def names(self) -> frozenset[str]:
        """The targets that may be."""

    def order(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return ``candidates``, the next user's home first; some of them may be unwell."""

    def change(self, shares: Mapping[str, float]) -> None:
        """Allot by ``shares`` from now on; none: as configured."""


class Entitlement:
    """How many users each target is owed, so that all have within one of their exact share.

    Args:
        shares: of each target, above 0.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        whole = sum(shares.values())
        self._shares = {name: share / whole for name, share in shares.items()}
        self._owed = dict.fromkeys(shares, 0.0)

    def entitled(self) -> Sequence[str]:
        """Return the targets any of which may have the next user, whoever is owed most first.

        Each of them is below its share, and none of the others would fall a user behind. For that, turns are
        laid out by who has to be next, as earliest deadline first does, which meets all deadlines that can
        be met. Whoever has a turn there before the first one's deadline can change turns with it.
        """
        owed = self._sum(self._owed)
        first = self._next(owed)
        found = {first}
        for _turn in range(min(_FAR, self._patience(first, owed[first]))):
            owed[self._next(owed)] -= 1
            owed = self._sum(owed)
            found.add(self._next(owed))
        now = self._sum(self._owed)
        return sorted((name for name in found if now[name] > _DUST), key=lambda name: -now[name])

    def give(self, name: str) -> None:
        """Count the next user as ``name``'s."""
        if name not in self._owed:
            return  # its share was taken away while the call was on its way
        self._owed = self._sum(self._owed)
        self._owed[name] -= 1

    def _sum(self, owed: Mapping[str, float]) -> dict[str, float]:
        return {name: owed[name] + share for name, share in self._shares.items()}

    def _next(self, owed: Mapping[str, float]) -> str:
        below = [name for name in owed if owed[name] > _DUST]
        return min(below, key=lambda name: (self._patience(name, owed[name]), -owed[name]))

    def _patience(self, name: str, owed: float) -> int:
        """Return how many turns ``name`` can wait until it would fall a user behind."""
        return max(0, math.ceil((1 - owed) / self._shares[name] - _DUST))


class Balance:
    """Who takes one more user best: well before unwell, then the less loaded, then the cheaper.

    Args:
        occupancy: of each target.
        cheapest: orders by price.
    """

    def __init__(self, occupancy: Mapping[str, Occupancy], cheapest: Strategy) -> None:
        self._occupancy = occupancy
        self._cheapest = cheapest

    def has_room(self, candidate: Candidate) -> bool:
        """Tell whether a user may be given to it: it has a place free, or is unwell and will not be asked."""
        return not candidate.well or self._occupancy[candidate.target].has_room

    def order(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the best first; whoever has no place free last."""
        return sorted(
            self._cheapest(candidates, demand),
            key=lambda c: (
                not c.well,
                not self._occupancy[c.target].has_room,
                self._occupancy[c.target].fullness,
            ),
        )


class HomesByShare:
    """Homes in proportion to shares; whose share lets them wait give way to the less loaded.

    Args:
        shares: of each target.
        balance: chooses among those who are entitled.
    """

    def __init__(self, shares: Mapping[str, float], balance: Balance) -> None:
        self._configured = dict(shares)
        self._shares: Mapping[str, float] = self._configured
        self._entitlement = Entitlement(self._shares)
        self._balance = balance

    @property
    def names(self) -> frozenset[str]:
        """The targets that have a share."""
        return frozenset(self._shares)

    def order(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the best of the entitled first; where they have no place free, the best of the others."""
        entitled = {name: at for at, name in enumerate(self._entitlement.entitled())}
        # Whoever is owed most comes first of those who are alike.
        alike = sorted(candidates, key=lambda c: entitled.get(c.target, len(entitled)))
        best = self._balance.order(alike, demand)
        due = [c for c in best if c.target in entitled]
        due_now = [c for c in due if self._balance.has_room(c)]
        others = [c for c in best if c.well and self._balance.has_room(c)]
        home = next(iter((*due_now, *others, *due, *best)))
        self._entitlement.give(home.target)
        return (home, *(c for c in best if c is not home))

    def change(self, shares: Mapping[str, float]) -> None:
        """Allot by ``shares`` from now on, as far as their targets are configured; none: as configured."""
        known = {name: share for name, share in shares.items() if name in self._configured}
        if (known or self._configured) != self._shares:
            self._shares = known or self._configured
            self._entitlement = Entitlement(self._shares)


class HomesByPreference:
    """Whoever is preferred is home, as written or by price, unless it has no place free.

    Args:
        names: the targets that may be.
        preference: orders them.
        balance: chooses where the preferred one has no place free.
    """

    def __init__(self, names: frozenset[str], preference: Strategy, balance: Balance) -> None:
        self.names = names
        self._preference = preference
        self._balance = balance

    def order(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the preferred one first, or else the best."""
        preferred = self._preference(candidates, demand)
        return preferred if self._balance.has_room(preferred[0]) else self._balance.order(candidates, demand)

    def change(self, shares: Mapping[str, float]) -> None:
        """Nothing: there are no shares."""


class HomesByLoad:
    """Whoever is best balanced is home.

    Args:
        names: the targets that may be.
        balance: chooses.
    """

    def __init__(self, names: frozenset[str], balance: Balance) -> None:
        self.names = names
        self.order = balance.order

    def change(self, shares: Mapping[str, float]) -> None:
        """Nothing: there are no shares."""
