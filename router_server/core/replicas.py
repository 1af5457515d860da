"""One target that several endpoints serve, and which of them a call asks first.

Each endpoint is a `Target` of its own, with its own breaker, rest and limiter, so that everything which holds
for targets holds for endpoints: health, retries, hedging, resuming, one span for each attempt. A route still
names, orders and reports the one target; a plan then asks its endpoints one after the other before it goes
on. A second router hidden inside a provider would have had to do all that again. Refuses to know engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router_server.core.plan import Candidate, Demand
from router_server.core.record import replace
from router_server.core.target import Target, TargetSettings

EndpointOrder = Callable[[Sequence[Target], Demand], Sequence[Target]]
"""Orders the endpoints of a target for a call, the best first; the plan leaves out who is unwell."""


def least_loaded(endpoints: Sequence[Target], _demand: Demand) -> Sequence[Target]:
    """Order by load: whoever is full or silent last, then by requests, then by cache in use.

    Whose own limit is reached comes after whose engine is crowded: there the call would wait for certain.
    """
    return sorted(endpoints, key=_burden)


def _burden(endpoint: Target) -> tuple[bool, bool, float, float]:
    upstream = endpoint.upstream
    return (
        not upstream.limiter.has_room(endpoint.gate),
        upstream.load.crowded,
        upstream.busyness,
        round(upstream.load.cache_used, 1),
    )


class ReplicatedTarget:
    """A target with several endpoints.

    Args:
        settings: what they share.
        endpoints: at least one.
        order: the best first, for each call anew.
    """

    def __init__(
        self, settings: TargetSettings, endpoints: Sequence[Target], order: EndpointOrder = least_loaded
    ) -> None:
        self.settings = settings
        self.endpoints = tuple(endpoints)
        self._order = order
        self._turn = 0

    @property
    def configured(self) -> str:
        """The name in the configuration."""
        return self.settings.name

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.endpoints[0].provider

    @property
    def serving(self) -> bool:
        """Tell whether any of its endpoints is served by choice, and ready."""
        return any(endpoint.serving for endpoint in self.endpoints)

    @property
    def takes_calls(self) -> bool:
        """Tell whether calls go to any of its endpoints by choice."""
        return any(endpoint.takes_calls for endpoint in self.endpoints)

    @property
    def available(self) -> bool:
        """Tell whether a call would go to any of its endpoints now."""
        return any(endpoint.available for endpoint in self.endpoints)

    @property
    def has_room(self) -> bool:
        """Tell whether any of its endpoints would give a call a place at once."""
        return any(endpoint.takes_calls and endpoint.has_room for endpoint in self.endpoints)

    @property
    def is_full(self) -> bool:
        """Tell whether a call could wait for a place at none of its endpoints."""
        return all(endpoint.is_full for endpoint in self.endpoints if endpoint.takes_calls)

    @property
    def load(self) -> int:
        """How many calls the least busy of its endpoints has: what a call would meet."""
        serving = [endpoint.load for endpoint in self.endpoints if endpoint.takes_calls]
        return min(serving or [endpoint.load for endpoint in self.endpoints])

    @property
    def fullness(self) -> float:
        """That of the least full of its endpoints: what a call would meet."""
        serving = [endpoint.fullness for endpoint in self.endpoints if endpoint.takes_calls]
        return min(serving or [endpoint.fullness for endpoint in self.endpoints])

    def candidate(self, demand: Demand) -> Candidate:
        """Return the target as a plan sees it now: as well as the best of its endpoints."""
        for endpoint in self.endpoints:
            endpoint.upstream.load.consulted()
        order = self._order(self._rotated(), demand)
        candidates = tuple(endpoint.candidate(demand) for endpoint in order)
        best = min(candidates, key=_distance)
        return replace(best, target=self.configured, group="", endpoints=candidates)

    def _rotated(self) -> Sequence[Target]:
        """Return the endpoints beginning with the next one: among equals, in turn."""
        self._turn = (self._turn + 1) % len(self.endpoints)
        return self.endpoints[self._turn :] + self.endpoints[: self._turn]


def _distance(candidate: Candidate) -> tuple[bool, bool, float, float]:
    """How far it is from being asked; the least of a target's endpoints is how far the target is."""
    return (candidate.cooling > 0, candidate.blocked is not None, candidate.ready_in, candidate.cooling)
