"""Calls that belong together go to the same target: who a call belongs to, and rendezvous hashing.

Pure and without memory: the key alone decides, so replicas agree without talking, and a target that comes or
goes moves only the keys that it gains or had. Refuses to know who is well; the plan passes over the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

from router_server.core.plan import Candidate, Demand, Strategy
from router_server.core.types import ChatRequest, EmbedRequest

KeyOf = Callable[[ChatRequest | EmbedRequest], str]
"""From a request to what it belongs to; empty where it says nothing of that."""

_SPAN = 2**64


def user_of(request: ChatRequest | EmbedRequest) -> str:
    """Return the caller's ``user_id``."""
    return request.user_id


def label_of(name: str) -> KeyOf:
    """Return the function from a request to its label ``name``."""
    return lambda request: request.labels.get(name, "")


def by_rendezvous(key: str, weights: Mapping[str, float]) -> list[str]:
    """Return the names of ``weights``, the best place for ``key`` first.

    Each name draws a number from the key and itself, and the best draw wins: so a key moves only where its
    place goes, or where a newcomer draws better. A name wins in proportion to its weight.
    """
    return sorted(weights, key=lambda name: _draw(key, name, weights[name]))


def _draw(key: str, name: str, weight: float) -> float:
    digest = hashlib.blake2b(f"{name}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    # Exponential waits at the rate of the weight: the least of them is in proportion to it.
    return -math.log((int.from_bytes(digest) + 1) / _SPAN) / weight


class Affinity:
    """A strategy: the same key, the same order of targets; without a key, another strategy's order.

    Args:
        key_of: what a call belongs to.
        weights: of the targets among which keys are spread; others come after them, as they are.
        keyless: for calls that belong to nothing.
    """

    def __init__(self, key_of: KeyOf, weights: Mapping[str, float], keyless: Strategy) -> None:
        self._key_of = key_of
        self._weights = weights
        self._keyless = keyless

    def __call__(self, candidates: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
        """Return ``candidates``, the key's own place first."""
        key = self._key_of(demand.request)
        if not key:
            return self._keyless(candidates, demand)
        here = {c.target: c for c in candidates}
        own = {name: self._weights[name] for name in here if name in self._weights}
        return (
            *(here[name] for name in by_rendezvous(key, own)),
            *(c for c in candidates if c.target not in own),
        )
