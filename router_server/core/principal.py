"""Who calls: what a caller shows, what the router makes of it, and what that one may do.

A leaf. Refuses to know how credentials are checked, and on which wire they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from router_server.core.budget import Terms


@dataclass(frozen=True, slots=True)
class Quota:
    """What one subject may use; None is unlimited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None

    def __bool__(self) -> bool:
        """Tell whether anything is limited."""
        return any((self.requests_per_minute, self.tokens_per_minute, self.max_concurrency))


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whom the router knows.

    Attributes:
        kind: how it is known: ``key``, ``jwt`` or ``mtls``.
        name: unique within its kind.
        routes: patterns of the routes that it may name, as shells have them; None: every route.
        quota: its own limits; None: those of any caller.
        labels: said of it by the configuration.
        budget: what may be spent for it; None: any sum.
    """

    kind: str
    name: str
    routes: tuple[str, ...] | None = None
    quota: Quota | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    budget: Terms | None = None

    @property
    def subject(self) -> str:
        """The one name under which it is logged, counted and limited: ``key/search``."""
        return f"{self.kind}/{self.name}"

    def may_call(self, route: str) -> bool:
        """Tell whether it may name ``route``."""
        return self.routes is None or any(fnmatchcase(route, pattern) for pattern in self.routes)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client certificate that was verified says of its owner, in the order in which it is trusted.

    Attributes:
        uris: URI names, SPIFFE ids for example.
        hosts: DNS names.
        common_name: of its subject; empty where it has none.
    """

    uris: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    common_name: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows; nothing of it is ever in a repr.

    Attributes:
        authorization: the whole value, ``Bearer …``; empty where there is none.
        api_key: the value of ``x-api-key``; empty where there is none.
        identity: of the connection's client certificate, or None.
    """

    authorization: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    identity: Identity | None = field(default=None, repr=False)


class Authenticator(Protocol):
    """Knows callers by what they show."""

    async def authenticate(self, shown: Credentials) -> Principal:
        """Return who it is.

        Raises:
            RouterError: UNAUTHENTICATED where that is not known, PERMISSION_DENIED where it is known and may
                call nothing.
        """
