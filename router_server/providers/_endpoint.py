"""Where an upstream listens: ``http(s)://host[:port][/path]`` or ``unix:///path/to.sock``.

Refuses to know what is behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream's base address.

    Attributes:
        base: the URL that paths are appended to, without a trailing slash.
        socket: the path of a unix socket; empty for TCP.
    """

    base: URL
    socket: str = ""

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port, or the socket's path and None."""
        if self.socket:
            return self.socket, None
        return self.base.host or "", self.base.port

    def url(self, path: str, *, beside: str = "") -> URL:
        """Return the URL of ``path``, which begins with a slash and may have a query, below the base.

        Where the base's path ends with ``beside``, that end is left out: ``/health`` stands beside ``/v1``.
        """
        base = self.base.raw_path.rstrip("/").removesuffix(beside)
        path, _, query = path.partition("?")
        return self.base.with_path(base + path, encoded=True).with_query(query or None)


def parse_endpoint(text: str, *, default_path: str = "") -> Endpoint:
    """Read a base URL; ``default_path`` is the path where it names none, as a unix socket never does.

    Raises:
        ValueError: with what is wrong; the text itself is not repeated, since it may hold a password.
    """
    try:
        url = URL(text.strip())
        port = url.explicit_port
    except ValueError:
        raise ValueError("is not a URL; write http://host:port/path or unix:///path/to.sock") from None
    if url.query_string or url.fragment:
        raise ValueError("must not have a query or a fragment; only scheme, host, port and path")
    if url.user or url.password:
        raise ValueError("must not hold credentials; put the key into api_key")
    if url.scheme == "unix":
        return _unix(url, default_path)
    if url.scheme not in ("http", "https"):
        raise ValueError("must begin with http://, https:// or unix:///")
    if not url.host or port == 0:
        raise ValueError("names no host, or port 0; write for example http://127.0.0.1:8000/v1")
    return Endpoint(url.with_path(url.raw_path.rstrip("/") or default_path, encoded=True))


def _unix(url: URL, path: str) -> Endpoint:
    if url.host or not url.path.strip("/"):
        raise ValueError("must name an absolute path with three slashes: unix:///path/to.sock")
    return Endpoint(URL("http://localhost" + path), url.path)
