"""Client certificates as callers: gRPC has verified them, this gives their owner a name.

Refuses to verify anything.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from router_server.auth.refusals import unauthenticated
from router_server.config.callers import MtlsConfig
from router_server.core.errors import Reason, RouterError
from router_server.core.principal import Identity, Principal


class CertificateNames:
    """Names the owners of certificates, and admits those that the configuration allows."""

    def __init__(self, settings: MtlsConfig) -> None:
        self._settings = settings
        self._quota = None if settings.limits is None else settings.limits.quota
        self._budget = None if settings.budget is None else settings.budget.terms

    def find(self, identity: Identity) -> Principal:
        """Return whose certificate it is.

        Raises:
            RouterError: UNAUTHENTICATED where it has no name, PERMISSION_DENIED where nobody has allowed it.
        """
        name = name_of(identity)
        if not name:
            raise unauthenticated(
                "The client certificate has no name: no URI, no DNS name and no common name.", "invalid"
            )
        allowed = self._settings.allow
        if allowed is not None and not any(fnmatchcase(name, pattern) for pattern in allowed):
            raise RouterError(
                Reason.PERMISSION_DENIED,
                "The owner of this client certificate may not call here.",
                metadata={"principal": f"mtls/{name}"},
            )
        return Principal("mtls", name, self._settings.routes, self._quota, budget=self._budget)


def name_of(identity: Identity) -> str:
    """Return the first URI, else the first DNS name, else the common name; empty where there is none."""
    return next((name for name in (*identity.uris, *identity.hosts, identity.common_name) if name), "")
