"""API keys: how they are made, and who shows one that is known.

Only hashes are kept. A plain SHA-256 suffices, where a password would need a slow and salted hash: a key is
256 bits of a cryptographic generator, so there is no list of likely keys to try, and no two keys are equal.
Refuses to know where keys are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from router_server.auth.refusals import unauthenticated
from router_server.config.callers import KeyConfig
from router_server.core.principal import Principal

_PREFIX: Final = "mr-"
"""So that scanners for leaked secrets, and people, see what it is."""

_BYTES: Final = 32
_INDEXED: Final = 8
"""Bytes of a hash by which keys are looked up. Nobody can choose a key by the first bytes of its hash without
trying 2**64 of them, so that the time of a lookup tells nothing; the rest is compared in constant time."""

_UNKNOWN: Final = "The key is not known here. Show one that is, as `authorization: Bearer` or `x-api-key`."
_EXPIRED: Final = "The key has expired; ask whoever runs the router for a new one."


def new_key() -> str:
    """Return a new key, which is to be shown once and kept nowhere."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(key: str) -> str:
    """Return what is kept of a key."""
    return _digest(key).hex()


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    principal: Principal
    expires: float | None


class KeyRing:
    """The keys that are known at one moment.

    Args:
        keys: all of them.
        clock: seconds since the epoch.
    """

    def __init__(self, keys: Iterable[KeyConfig], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: defaultdict[bytes, list[_Known]] = defaultdict(list)
        for key in keys:
            known = _known(key)
            self._known[known.digest[:_INDEXED]].append(known)

    def __len__(self) -> int:
        return sum(map(len, self._known.values()))

    def find(self, shown: str) -> Principal:
        """Return whose key it is.

        Raises:
            RouterError: UNAUTHENTICATED: nobody's, or it has expired.
        """
        digest = _digest(shown)
        for known in self._known.get(digest[:_INDEXED], ()):
            if hmac.compare_digest(known.digest, digest):
                if known.expires is not None and known.expires <= self._clock():
                    raise unauthenticated(_EXPIRED, "expired")
                return known.principal
        raise unauthenticated(_UNKNOWN, "invalid")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _known(key: KeyConfig) -> _Known:
    quota = None if key.limits is None else key.limits.quota
    budget = None if key.budget is None else key.budget.terms
    principal = Principal("key", key.name, key.routes, quota, key.labels, budget)
    expires = None if key.expires is None else key.expires.timestamp()
    return _Known(bytes.fromhex(key.sha256), principal, expires)
