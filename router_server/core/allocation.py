"""Which target a user's calls go to, for an hour: allotted by shares, kept by all replicas.

A user has a home. While the home is unwell the user has a stand-in, the same for every call; once the home is
well again the stand-in is dropped, so that traffic returns to where it belongs. Refuses to judge who is well:
the plan's candidates say so. Refuses to wait for shared values that are gone: this process's own memory
serves meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from router_server.core.affinity import KeyOf
from router_server.core.homes import Homes
from router_server.core.moves import Moves
from router_server.core.plan import Candidate, Demand, Strategy
from router_server.core.shared import SharedValues, UnreachableError
from router_server.core.types import ChatRequest, EmbedRequest

TTL = 3_600.0
"""Seconds from the allotment until a user is allotted anew."""

_DIGITS = 32
"""Of the user's digest in a key: 128 bits, so that ids of any length and meaning stay with us."""

_MOST = 65_536
"""Users whom this process remembers by itself; of more, the least recently seen are allotted anew."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a user's calls go: home, or the stand-in as long as home is unwell."""

    home: str
    stand_in: str = ""

    @property
    def place(self) -> str:
        """Where the user's calls go now."""
        return self.stand_in or self.home

    def pack(self) -> bytes:
        """Return it as it is kept; names have no white space."""
        return f"{self.home} {self.stand_in}".strip().encode()


def unpack(packed: bytes) -> Seat | None:
    """Return the seat that was packed, or None where that is no seat."""
    match packed.decode(errors="replace").split():
        case [home]:
            return Seat(home)
        case [home, stand_in]:
            return Seat(home, stand_in)
        case _:
            return None


def parse_shares(packed: bytes) -> Mapping[str, float]:
    """Return the shares that were kept, without those that make no sense."""
    try:
        found = json.loads(packed)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: float(share) for name, share in found.items() if isinstance(share, int | float) and share > 0
    }


class Allotment:
    """The strategy of one user's call: the user's seat first.

    Args:
        name: of the allotment, where it is kept.
        known: the seat as it was found, if one was.
        homes: gives the home of a user who has none; sees also targets that are unwell.
        stand_ins: orders those who may stand in.
        own: the targets among which users are allotted.

    Attributes:
        found: tells whether a seat was found, be it of use or not.
        seat: what is to be kept, once the strategy was asked; None: nothing.
    """

    def __init__(
        self, name: str, known: Seat | None, homes: Strategy, stand_ins: Strategy, own: frozenset[str]
    ) -> None:
        self.name = name
        self.found = known is not None
        self.known = known if known is not None and known.home in own else None
        self.seat = self.known
        self._homes = homes
        self._stand_ins = stand_ins
        self._own = own

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return ``candidates``, whoever the user is allotted first."""
        here = {c.target: c for c in candidates}
        if self._own - here.keys():
            # A call that not all of them can take says nothing of where the user belongs.
            seat = self.known
            return _with_first(here.get(seat.home) if seat else None, self._stand_ins(candidates, demand))
        if self.seat is None:
            self.seat = Seat(self._homes([c for c in candidates if c.target in self._own], demand)[0].target)
        home = here[self.seat.home]
        if home.well:
            self.seat = Seat(home.target)
            return _with_first(home, candidates)
        well = [c for c in candidates if c.well]
        if not well:
            return _with_first(home, candidates)
        stand_in = here.get(self.seat.stand_in)
        if stand_in is None or not stand_in.well:
            stand_in = self._stand_ins(well, demand)[0]
        self.seat = Seat(home.target, stand_in.target)
        return _with_first(stand_in, candidates)


def _with_first(first: Candidate | None, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return candidates if first is None else (first, *(c for c in candidates if c is not first))


class Allocation:
    """The allotments of one route.

    Args:
        key_of: who a call belongs to.
        homes: who may be home, and whose turn it is.
        stand_ins: see `Allotment`.
        clock: monotonic seconds.
        ttl: seconds.
        shared: where replicas keep the allotments, or None.
        name_key: from a user's digest to the key of the allotment.
        shares_key: where the shares are kept that were changed at run time.
        route: the route's name.

    Attributes:
        moves: what became of users so far, by what this process decided.
    """

    def __init__(
        self,
        key_of: KeyOf,
        homes: Homes,
        stand_ins: Strategy,
        *,
        clock: Callable[[], float],
        ttl: float = TTL,
        shared: SharedValues | None = None,
        name_key: Callable[[str], str] = str,
        shares_key: str = "shares",
        route: str = "",
    ) -> None:
        self._key_of = key_of
        self._homes = homes
        self._stand_ins = stand_ins
        self._clock = clock
        self._ttl = ttl
        self._shared = shared
        self._name_key = name_key
        self._shares_key = shares_key
        self.moves = Moves(route)
        self._memory: OrderedDict[str, tuple[Seat, float]] = OrderedDict()

    def take_over(self, before: Allocation) -> None:
        """Leave users where ``before`` has put them; calls that it still serves are seen here too."""
        self._memory = before._memory
        self.moves = before.moves

    async def recall(self, request: ChatRequest | EmbedRequest) -> Allotment | None:
        """Return the strategy of a call, or None where it belongs to nobody."""
        user = self._key_of(request)
        if not user:
            return None
        name = self._name_key(hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()[:_DIGITS])
        seat = await self._find(name)
        return Allotment(name, seat, self._homes.order, self._stand_ins, self._homes.names)

    async def keep(self, allotment: Allotment) -> bool:
        """Keep what the strategy chose; tell whether it holds: not where another call was quicker."""
        seat = allotment.seat
        if seat is None:
            return True
        self._remember(allotment.name, seat)
        if seat == allotment.known:
            return True
        holds = self._shared is None or await self._write(self._shared, allotment, seat)
        if holds:
            self._count(allotment.known, seat)
        return holds

    async def _write(self, shared: SharedValues, allotment: Allotment, seat: Seat) -> bool:
        only_if_absent = not allotment.found
        try:
            return await shared.put(allotment.name, seat.pack(), self._ttl, only_if_absent=only_if_absent)
        except UnreachableError:
            return True

    def _count(self, before: Seat | None, seat: Seat) -> None:
        if before is None:
            self.moves.allotted[seat.home] += 1
        elif before.place != seat.place:
            self.moves.moved[before.place, seat.place] += 1

    async def _find(self, name: str) -> Seat | None:
        if self._shared is None:
            return self._remembered(name)
        try:
            packed, shares = await self._shared.get_all((name, self._shares_key))
        except UnreachableError:
            return self._remembered(name)
        self._homes.change(parse_shares(shares) if shares else {})
        return unpack(packed) if packed else None

    def _remembered(self, name: str) -> Seat | None:
        seat, until = self._memory.get(name, (None, 0.0))
        return seat if self._clock() < until else None

    def _remember(self, name: str, seat: Seat) -> None:
        before, until = self._memory.pop(name, (None, 0.0))
        now = self._clock()
        self._memory[name] = (seat, until if before == seat and now < until else now + self._ttl)
        if len(self._memory) > _MOST:
            self._memory.popitem(last=False)
