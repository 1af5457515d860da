"""Why the shared state cannot be used, in words for whoever runs the router.

Says nothing that the server or its URL says: either may hold a password. Refuses to decide what to do.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, ReadOnlyError

_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (AuthenticationError, "it refuses the user or the password"),
    (NoPermissionError, "its user may not do what is needed"),
    (ReadOnlyError, "it is a replica that may only be read"),
    (OutOfMemoryError, "its memory is full"),
    (ssl.SSLError, "no TLS can be agreed on: rediss:// is for servers that speak TLS, redis:// for others"),
    (ConnectionRefusedError, "nobody listens there"),
    (FileNotFoundError, "its socket, or a file that the URL names, does not exist"),
    (TimeoutError, "it does not answer in time"),
)


def cause_of(error: BaseException) -> str:
    """Return why, as far as it is known; else the kind of the error."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted: {one.verify_message}; name the authority that signed it, "
                "?ssl_ca_certs=/path/to/ca.pem in the URL"
            )
    for kind, words in _WORDS:
        if any(isinstance(one, kind) for one in chain):
            return words
    return type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
