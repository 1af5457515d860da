"""Where the replicas' shared state is: a URL that shows itself without its password.

Refuses to connect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, SecretStr

_SCHEMES = frozenset({"redis", "rediss", "unix"})
_ADVICE = "write redis://host:6379/0, rediss://user:password@host:6379/0 or unix:///path/to/socket"


class SharedUrl(SecretStr):
    """The URL of a Redis. What it shows of itself has no password and no options."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._display()!r})"

    def _display(self) -> str:
        parts = urlsplit(self.get_secret_value())
        credentials, at, place = parts.netloc.rpartition("@")
        user = credentials.partition(":")[0]
        return SplitResult(parts.scheme, f"{user}{at}{place}", parts.path, "", "").geturl()

    def secrets(self) -> Iterator[str]:
        """Yield everything that must not be shown: the whole, and the password as written and as meant."""
        password = urlsplit(self.get_secret_value()).password
        if password:
            yield from dict.fromkeys((self.get_secret_value(), password, unquote(password)))


def _checked(url: SharedUrl) -> SharedUrl:
    try:
        parts = urlsplit(url.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError(f"is not the URL of a Redis; {_ADVICE}") from None
    if parts.scheme not in _SCHEMES or port == 0:
        raise ValueError(f"is not the URL of a Redis; {_ADVICE}")
    if parts.scheme == "unix" and (not parts.path.strip("/") or parts.hostname):
        raise ValueError(f"names no socket; {_ADVICE}")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError(f"names no host; {_ADVICE}")
    return url


RedisUrl = Annotated[SharedUrl, AfterValidator(_checked)]
"""``redis://``, ``rediss://`` (TLS) or ``unix://``."""
