"""What a caller shows of itself: two keys of the metadata, and the client certificate of its connection.

The values go to the authenticator alone: no observer, log or upstream is given them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from grpc import aio

from router_server.core.principal import Credentials, Identity

_AUTHORIZATION: Final = "authorization"
_API_KEY: Final = "x-api-key"


def credentials_of(context: aio.ServicerContext[Any, Any]) -> Credentials:
    """Return what the caller of this RPC shows."""
    shown = _shown(context.invocation_metadata() or ())
    return Credentials(
        shown.get(_AUTHORIZATION, ""), shown.get(_API_KEY, ""), _identity(context.auth_context())
    )


def _shown(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in metadata:
        # Of one that is sent twice the first counts, so that a proxy's addition changes nothing.
        if key in {_AUTHORIZATION, _API_KEY} and isinstance(value, str):
            found.setdefault(key, value)
    return found


def _identity(properties: Mapping[str, Iterable[bytes]]) -> Identity | None:
    if not properties.get("x509_pem_cert"):
        return None
    names = _texts(properties, "x509_common_name")
    return Identity(
        uris=_texts(properties, "peer_uri"),
        hosts=_texts(properties, "peer_dns"),
        common_name=names[0] if names else "",
    )


def _texts(properties: Mapping[str, Iterable[bytes]], name: str) -> tuple[str, ...]:
    return tuple(value.decode(errors="replace") for value in properties.get(name, ()))
