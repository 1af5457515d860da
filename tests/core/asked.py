"""Calls and candidates as a strategy sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router_server.core.errors import Outcome
from router_server.core.plan import Candidate, Demand, Plan, Strategy, make_plan, ordered
from router_server.core.provider import Capability
from router_server.core.types import ChatRequest, EmbedRequest, Operation

CHAT = frozenset({Capability.CHAT})


@dataclass
class Asked:
    """A call."""

    operation: Operation = Operation.CHAT
    prompt_tokens: int = 1000
    request: ChatRequest | EmbedRequest = field(default_factory=lambda: ChatRequest("r", ()))


@dataclass
class Busy:
    """A target's places."""

    has_room: bool = True
    is_full: bool = False
    load: int = 0
    fullness: float = 0.0


@dataclass
class Seen:
    """A target of which nothing is known but how a plan sees it."""

    view: Candidate

    @property
    def configured(self) -> str:
        return self.view.target

    def candidate(self, _demand: Demand) -> Candidate:
        return self.view


def planned(
    views: Sequence[Candidate],
    demand: Demand,
    strategy: Strategy = ordered,
    needs: frozenset[Capability] = CHAT,
) -> Plan:
    return make_plan([Seen(view) for view in views], needs, demand, strategy)


def those(names: str, **unwell: Candidate) -> list[Candidate]:
    return [unwell.get(name, Candidate(name, CHAT)) for name in names]


def cooling(name: str) -> Candidate:
    return Candidate(name, CHAT, cooling=3.0)


def opened(name: str) -> Candidate:
    return Candidate(name, CHAT, blocked=Outcome.CIRCUIT_OPEN, ready_in=5.0)


def names(candidates: Sequence[Candidate]) -> str:
    return "".join(candidate.target for candidate in candidates)
