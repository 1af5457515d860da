"""Who is calling: the one place that weighs what a caller shows.

A token or key in the metadata counts before the certificate of the connection, since it is said for this
very call; one that is bad is refused, whatever the certificate says.
"""

from __future__ import annotations

from typing import Final, Protocol

from router_server.auth.refusals import unauthenticated
from router_server.core.principal import Credentials, Identity, Principal

_BEARER: Final = "bearer"
_DOTS_OF_A_JWT: Final = 2
"""Two in every signed one; none in a key of ours."""


class Keys(Protocol):
    """Knows API keys."""

    def find(self, shown: str) -> Principal:
        """Return whose key it is, or raise a RouterError."""


class Tokens(Protocol):
    """Knows signed tokens."""

    async def verify(self, token: str) -> Principal:
        """Return whose token it is, or raise a RouterError."""


class Certificates(Protocol):
    """Knows client certificates."""

    def find(self, identity: Identity) -> Principal:
        """Return whose certificate it is, or raise a RouterError."""


class Entrance:
    """Knows callers by whatever the configuration accepts.

    Args:
        keys: None: no key is accepted.
        tokens: None: no token is.
        certificates: None: no certificate is.
    """

    def __init__(self, keys: Keys | None, tokens: Tokens | None, certificates: Certificates | None) -> None:
        self._keys = keys
        self._tokens = tokens
        self._certificates = certificates
        accepted = (
            (keys or tokens, "`authorization: Bearer …`"),
            (keys, "`x-api-key`"),
            (certificates, "a client certificate"),
        )
        ways = ", ".join(way for who, way in accepted if who is not None)
        self._missing = f"This server asks who calls; show one of: {ways}."

    async def authenticate(self, shown: Credentials) -> Principal:
        """Return who it is.

        Raises:
            RouterError: UNAUTHENTICATED or PERMISSION_DENIED.
        """
        if shown.authorization and (self._keys or self._tokens):
            return await self._by_token(_bearer(shown.authorization))
        if shown.api_key and self._keys is not None:
            return self._keys.find(shown.api_key)
        if shown.identity is not None and self._certificates is not None:
            return self._certificates.find(shown.identity)
        raise unauthenticated(self._missing, "missing")

    async def _by_token(self, token: str) -> Principal:
        signed = token.count(".") == _DOTS_OF_A_JWT
        if self._tokens is not None and (signed or self._keys is None):
            return await self._tokens.verify(token)
        assert self._keys is not None, "one of the two is there"  # noqa: S101 - narrows the type
        return self._keys.find(token)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != _BEARER or not token.strip():
        raise unauthenticated("`authorization` is not `Bearer` and a key or token; write it so.", "invalid")
    return token.strip()
