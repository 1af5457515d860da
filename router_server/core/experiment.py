"""A share of a route's calls goes to a new target first, and is told apart from the rest.

Pure; chance is injected. Refuses to know what the two arms are compared by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from router_server.core.affinity import KeyOf
from router_server.core.plan import Candidate, Demand, Strategy
from router_server.core.types import ChatRequest, EmbedRequest

CONTROL = "control"
"""The arm of the calls that go as they always do."""

_SPAN = 2**64


class Experiment:
    """The experiment of one route.

    A call of the treated arm asks ``target`` first and then as the others do; a call of the control arm
    never asks it. The arm is that of the intention: it stays where ``target`` is unwell or fails.

    Args:
        name: of the treated arm.
        target: who is tried.
        share: of the calls, or of the keys where there are keys; 0 to 1.
        chance: gives a number from 0 up to, and without, 1.
        key_of: what keeps its arm from call to call; calls without it are left to chance.
    """

    def __init__(
        self, name: str, target: str, share: float, chance: Callable[[], float], key_of: KeyOf | None = None
    ) -> None:
        self.name = name
        self._target = target
        self._share = share
        self._chance = chance
        self._key_of = key_of

    def arm(self, request: ChatRequest | EmbedRequest) -> str:
        """Return the arm of a call; empty where the caller names targets, and so is in no experiment."""
        if request.routing.allowed_targets:
            return ""
        key = self._key_of(request) if self._key_of else ""
        drawn = self._draw(key) if key else self._chance()
        return self.name if drawn < self._share else CONTROL

    def strategy(self, arm: str, usual: Strategy) -> Strategy:
        """Return the strategy of a call of ``arm``; ``usual`` is that of the route."""

        def order(candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
            others = [c for c in candidates if c.target != self._target]
            tried = [c for c in candidates if c.target == self._target and arm == self.name]
            # Where only the new target can do what the call needs, there is nobody to compare it with.
            return (*tried, *usual(others, demand)) if others else candidates

        return order

    def _draw(self, key: str) -> float:
        # The name is in it: who is treated in one experiment is anybody in the next.
        digest = hashlib.blake2b(f"{self.name}\0{key}".encode(errors="surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest()) / _SPAN
