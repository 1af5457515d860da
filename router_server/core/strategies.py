"""How a route chooses among its targets: in turn, by load, by chance, by speed, by price.

A `Choice` is a plan's strategy: it passes over who is unwell or full, lets a `Rank` order the others, and
puts the route's fallback behind them. Pure; the clock, the chance and the load of targets are injected.
Refuses to know what a target is, and to judge whether it is well: the plan's candidates say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from router_server.core.occupancy import Occupancy
from router_server.core.plan import Candidate, Demand
from router_server.core.types import ChatRequest, Operation

EXPLORED = 0.05
"""The share of calls by which `LowestLatency` learns how the others are: one in twenty."""

_TYPICAL_ANSWER = 256
"""Tokens of an answer where nothing limits it to fewer: near the mean of LMSYS-Chat-1M, 215."""


class Rank(Protocol):
    """Orders candidates that are all well; the first is the pick, and there is at least one."""

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return ``candidates``, the best first."""


class Choice:
    """A strategy: one rank among the targets that are well, then the fallback in its order.

    A target that would let the call wait is passed over while another would not, and one whose queue is full
    while another's is not: so weights give way to load, as with nginx's ``max_conns``.

    Args:
        rank: orders those who are well.
        occupancy: of each target.
        fallback: names of the targets that are asked after all others.
    """

    def __init__(
        self, rank: Rank, occupancy: Mapping[str, Occupancy], fallback: frozenset[str] = frozenset()
    ) -> None:
        self._rank = rank
        self._occupancy = occupancy
        self._fallback = fallback

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return ``candidates`` in the order in which this call tries them."""
        own = [c for c in candidates if c.target not in self._fallback]
        ready = self._ready([c for c in own if c.well])
        ranked = self._rank(ready, demand) if ready else ()
        chosen = {c.target for c in ranked}
        others = [c for c in own if c.target not in chosen]
        return (*ranked, *others, *(c for c in candidates if c.target in self._fallback))

    def _ready(self, well: Sequence[Candidate]) -> Sequence[Candidate]:
        at_once = [c for c in well if self._occupancy[c.target].has_room]
        return at_once or [c for c in well if not self._occupancy[c.target].is_full] or well


class InTurn:
    """Smooth weighted round robin, as nginx has it: in any ``sum(weights)`` picks each has its weight.

    The picks of a target are spread out: 5, 1 and 1 give ``a a b a c a a``, not five times ``a`` in a row.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._credit = dict.fromkeys(weights, 0.0)

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:  # noqa: ARG002 - a rank
        """Return whose turn it is, then who comes soonest after it."""
        credit = self._credit
        for candidate in candidates:
            credit[candidate.target] += self._weights[candidate.target]
        order = sorted(candidates, key=lambda c: -credit[c.target])
        credit[order[0].target] -= sum(self._weights[c.target] for c in candidates)
        return order


class LeastInflight:
    """Whoever has the fewest calls for its weight, this one counted; among equals, in turn."""

    def __init__(self, weights: Mapping[str, float], occupancy: Mapping[str, Occupancy]) -> None:
        self._weights = weights
        self._occupancy = occupancy
        self._turn = InTurn(weights)

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the least busy first."""
        burden = {
            c.target: (self._occupancy[c.target].load + 1) / self._weights[c.target] for c in candidates
        }
        order = sorted(candidates, key=lambda c: burden[c.target])
        equal = [c for c in order if burden[c.target] == burden[order[0].target]]
        return (*self._turn(equal, demand), *order[len(equal) :])


class AtRandom:
    """Whoever chance picks, in proportion to the weights; the order of the others is chance too.

    Args:
        weights: of each target.
        chance: gives a number from 0 up to, and without, 1.
    """

    def __init__(self, weights: Mapping[str, float], chance: Callable[[], float]) -> None:
        self._weights = weights
        self._chance = chance

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:  # noqa: ARG002 - a rank
        """Return the candidates shuffled."""
        # The least of exponential waits, each at the rate of its weight, comes first in proportion to it:
        # sampling without replacement (Efraimidis and Spirakis, 2006) in one draw for each.
        wait = {c.target: -math.log(1 - self._chance()) / self._weights[c.target] for c in candidates}
        return sorted(candidates, key=lambda c: wait[c.target])


class Speeds(Protocol):
    """What is known of how quick targets are."""

    def expected(self, target: str, operation: Operation) -> float | None:
        """Return the seconds that ``target`` needs to begin, or None where nothing is known."""

    def age(self, target: str, operation: Operation) -> float:
        """Return the seconds since that was last measured; infinite where it never was."""


class LowestLatency:
    """Whoever begins soonest; one call in twenty goes to whom the least recent measurement is of.

    Without that nobody would learn that a slow target has become quick. While nothing is known of anyone,
    it is by turns.
    """

    def __init__(self, targets: Sequence[str], speeds: Speeds, chance: Callable[[], float]) -> None:
        self._speeds = speeds
        self._chance = chance
        self._turn = InTurn(dict.fromkeys(targets, 1))

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the quickest first, those of whom nothing is known last; or one that is to be measured."""
        operation = demand.operation
        seconds = {c.target: self._speeds.expected(c.target, operation) for c in candidates}
        known = [c for c in candidates if seconds[c.target] is not None]
        if not known:
            return self._turn(candidates, demand)
        order = sorted(candidates, key=lambda c: _or_last(seconds[c.target]))
        if len(order) == 1 or self._chance() >= EXPLORED:
            return order
        stalest = max(order[1:], key=lambda c: self._speeds.age(c.target, operation))
        return (stalest, *(c for c in order if c is not stalest))


class LowestCost:
    """Whoever is expected to be cheapest for this very call; who has no price comes last.

    Args:
        prices: of each target: nano-USD for so many tokens in and out.
        limits: the most tokens that a target puts out, or None.
    """

    def __init__(
        self, prices: Mapping[str, Callable[[int, int], int | None]], limits: Mapping[str, int | None]
    ) -> None:
        self._prices = prices
        self._limits = limits

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the cheapest first."""
        cost = {c.target: self._cost(c.target, demand) for c in candidates}
        return sorted(candidates, key=lambda c: _or_last(cost[c.target]))

    def _cost(self, target: str, demand: Demand) -> int | None:
        request = demand.request
        wish = request.generation.max_output_tokens if isinstance(request, ChatRequest) else 0
        limits = [limit for limit in (wish, self._limits[target]) if limit is not None]
        return self._prices[target](demand.prompt_tokens, min([_TYPICAL_ANSWER, *limits]))


class Balanced:
    """Whoever has the fewest calls for its weight, this one counted; among equals the cheapest."""

    def __init__(
        self, weights: Mapping[str, float], occupancy: Mapping[str, Occupancy], cheapest: LowestCost
    ) -> None:
        self._weights = weights
        self._occupancy = occupancy
        self._cheapest = cheapest

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return the least busy first."""
        return sorted(
            self._cheapest(candidates, demand),
            key=lambda c: (self._occupancy[c.target].load + 1) / self._weights[c.target],
        )


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value
