"""Which targets a call tries, and in which order; `course` says how it goes on after a failure.

Pure: it sees targets as frozen `Candidate` views and answers with a value. A strategy
is a function that orders candidates. Where the order is the configuration's, nobody is looked at before it is
his turn: a call to 200 targets costs what one to two does. Refuses to call, wait or remember anything beyond
one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from router_server.core.errors import (
    Outcome,
    Reason,
    RouterError,
    Violation,
)
from router_server.core.provider import Capability
from router_server.core.record import Record, replace
from router_server.core.types import ChatRequest, EmbedRequest, Operation, Routing

_EMBED = Capability.EMBED
MOST_ENDPOINTS = 4
"""How many endpoints of one target a call asks: a prompt that kills engines must not go through a fleet."""


class Candidate(Record, frozen=True):
    """A target as a plan sees it.

    Attributes:
        target: its name.
        capabilities: what it can do.
        context_window: tokens, or None where unknown.
        space: its embedding space.
        cooling: seconds it still rests after a 429.
        blocked: why it is not asked by choice (CIRCUIT_OPEN, AUTH, MODEL_MISSING), or None.
        ready_in: seconds until its breaker lets a probe through.
        retries: how often it may be asked again after UNAVAILABLE.
        group: where it is one endpoint of a target, the target's name; ``target`` then is the endpoint's own.
        endpoints: where several endpoints serve the target, each of them, the best first.
    """

    target: str
    capabilities: frozenset[Capability]
    context_window: int | None = None
    space: str = ""
    cooling: float = 0.0
    blocked: Outcome | None = None
    ready_in: float = 0.0
    retries: int = 1
    group: str = ""
    endpoints: tuple[Candidate, ...] = ()

    @property
    def configured(self) -> str:
        """The target's name in the configuration."""
        return self.group or self.target

    @property
    def well(self) -> bool:
        """Tell whether it is asked by choice."""
        return self.cooling <= 0 and self.blocked is None


class Demand(Protocol):
    """What a strategy may know of a call."""

    @property
    def operation(self) -> Operation:
        """What is asked."""

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens the prompt has."""

    @property
    def request(self) -> ChatRequest | EmbedRequest:
        """What the caller sent."""


class Prospect(Protocol):
    """Whom a call may go to."""

    @property
    def configured(self) -> str:
        """The name in the configuration."""

    def candidate(self, demand: Demand) -> Candidate:
        """Return it as a plan sees it now, for this call."""


Strategy = Callable[[Sequence[Candidate], Demand], Sequence[Candidate]]
"""Orders candidates for a call, each once."""


def ordered(candidates: Sequence[Candidate], _demand: Demand) -> Sequence[Candidate]:
    """The order of the configuration."""
    return candidates


class Skip(Record, frozen=True):
    """A target that could answer but was not asked, and why; ``wait`` is its rest in seconds.

    Of a target with several endpoints the one that will be well soonest stands for all.
    """

    target: str
    outcome: Outcome
    wait: float = 0.0


class Plan(Record, frozen=True):
    """The targets to try, in order.

    Attributes:
        first: the strategy's pick; any other that answers is a fallback.
        order: whom to ask.
        skipped: whom not to ask.
        last_resort: nobody is well; the one in ``order`` is the least bad and is tried once.
        rest: who comes after them and was not looked at yet, `next_well` does; ``()`` where that is nobody.
    """

    first: str
    order: tuple[Candidate, ...]
    skipped: tuple[Skip, ...] = ()
    last_resort: bool = False
    rest: Iterable[Candidate] = ()


def make_plan(
    prospects: Sequence[Prospect],
    needs: frozenset[Capability],
    demand: Demand,
    strategy: Strategy = ordered,
) -> Plan:
    """Return the plan of a call; who names ``allowed_targets`` has chosen their order, too.

    Raises:
        RouterError: INVALID_REQUEST where ``allowed_targets`` names a stranger, CAPABILITY_UNSUPPORTED where
            no target can do what the call needs.
    """
    routing = demand.request.routing
    if routing.allowed_targets:
        chosen = _allowed(prospects, routing.allowed_targets)
        return _of_all(_able(chosen, needs, demand), needs, routing)
    if strategy is not ordered:
        return _of_all(strategy(_able(prospects, needs, demand), demand), needs, routing)
    others = iter(prospects)
    for prospect in others:
        first = prospect.candidate(demand)
        if needs <= first.capabilities:
            break
    else:
        raise _unsupported(prospects, needs, demand)
    alone = prospect is prospects[-1] or not routing.allow_failover
    rest = () if alone else _behind(first, others, needs, demand)
    if first.blocked is None and first.cooling <= 0 and not first.endpoints:  # nearly always so
        return Plan(first.group or first.target, (first,), rest=rest)
    well, passed_over = next_well(chain((first,), rest))
    plan = _eligible([*passed_over, *well])
    return replace(plan, rest=rest) if well else plan


def _of_all(picked: Sequence[Candidate], needs: frozenset[Capability], routing: Routing) -> Plan:
    """Return the plan of a call for which everybody has been put in order."""
    if _EMBED in needs:
        picked = [c for c in picked if c.space == picked[0].space]
    if not routing.allow_failover:
        picked = picked[:1]
    return _eligible([endpoint for c in picked for endpoint in _endpoints(c)])


def next_well(rest: Iterable[Candidate]) -> tuple[Sequence[Candidate], Sequence[Candidate]]:
    """Return whom to ask for the next target that is well, and who was passed over on the way to it."""
    passed_over: list[Candidate] = []
    for candidate in rest:
        if candidate.blocked is None and candidate.cooling <= 0:
            return _endpoints(candidate), passed_over
        passed_over += _endpoints(candidate)
    return (), passed_over


def _endpoints(candidate: Candidate) -> Sequence[Candidate]:
    """Return whom to ask for a target: its endpoints that are well, in their order, else all of them."""
    if not candidate.endpoints:
        return (candidate,)
    well = [c for c in candidate.endpoints if c.well]
    return well[:MOST_ENDPOINTS] or candidate.endpoints


def _allowed(prospects: Sequence[Prospect], allowed: tuple[str, ...]) -> Sequence[Prospect]:
    by_name = {prospect.configured: prospect for prospect in prospects}
    strangers = [(i, name) for i, name in enumerate(allowed) if name not in by_name]
    if strangers:
        known = ", ".join(by_name)
        raise RouterError(
            Reason.INVALID_REQUEST,
            "routing.allowed_targets names targets that the route does not have.",
            violations=tuple(
                Violation(
                    f"routing.allowed_targets[{i}]", f"not a target of this route; its targets are: {known}"
                )
                for i, _name in strangers
            ),
        )
    return [by_name[name] for name in dict.fromkeys(allowed)]


def _able(prospects: Sequence[Prospect], needs: frozenset[Capability], demand: Demand) -> Sequence[Candidate]:
    candidates = [prospect.candidate(demand) for prospect in prospects]
    able = [candidate for candidate in candidates if needs <= candidate.capabilities]
    if not able:
        raise _unsupported(prospects, needs, demand)
    return able


def _behind(
    first: Candidate, prospects: Iterator[Prospect], needs: frozenset[Capability], demand: Demand
) -> Iterator[Candidate]:
    """Yield who can do it as well as ``first``, looked at when it is their turn."""
    embeds = _EMBED in needs
    for prospect in prospects:
        candidate = prospect.candidate(demand)
        if needs <= candidate.capabilities and not (embeds and candidate.space != first.space):
            yield candidate


def _unsupported(prospects: Sequence[Prospect], needs: frozenset[Capability], demand: Demand) -> RouterError:
    lacking = min((sorted(needs - p.candidate(demand).capabilities) for p in prospects), key=len)
    names = ", ".join(lacking)
    return RouterError(
        Reason.CAPABILITY_UNSUPPORTED,
        f"No target of this route can do what the call needs: {names}. "
        "Leave it out, or name a route whose targets can.",
        metadata={"capability": names},
    )


def _eligible(picked: Sequence[Candidate]) -> Plan:
    well = tuple([c for c in picked if c.cooling <= 0 and c.blocked is None])
    if len(well) == len(picked):
        return Plan(picked[0].configured, well)
    unwell = [c for c in picked if c.cooling <= 0 and c.blocked is not None]
    last_resort = not well and bool(unwell)
    order = (min(unwell, key=lambda c: c.ready_in),) if last_resort else well
    asked = {c.configured for c in order}
    return Plan(
        first=picked[0].configured,
        order=order,
        skipped=tuple(skips([c for c in picked if c.configured not in asked])),
        last_resort=last_resort,
    )


def skips(passed_over: Sequence[Candidate]) -> Iterable[Skip]:
    """Return one skip for each target, in their order; of its endpoints, of the one that is well soonest."""
    soonest: dict[str, Skip] = {}
    for candidate in passed_over:
        skip = _skip(candidate)
        known = soonest.get(skip.target)
        if known is None or skip.wait < known.wait:
            soonest[skip.target] = skip
    return soonest.values()


def _skip(candidate: Candidate) -> Skip:
    if candidate.cooling > 0:
        return Skip(candidate.configured, Outcome.RATE_LIMITED, candidate.cooling)
    return Skip(candidate.configured, candidate.blocked or Outcome.CIRCUIT_OPEN, candidate.ready_in)
