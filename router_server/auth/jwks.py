"""The public keys of an identity provider: a JWK set from a URL or a file, kept fresh.

Keys that were read stay in use while the provider does not answer. Refuses to know what is signed with them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

_log = logging.getLogger(__name__)

FETCH_TIMEOUT: Final = 3.0
"""Seconds; also the longest that a call waits whose token is signed with a key that is not known yet."""

SOONEST: Final = 10.0
"""Seconds between two fetches for the sake of unknown keys: their names are whatever a caller writes."""

_RETRY: Final = 5.0
"""Seconds after a fetch that failed."""
_MOST_BYTES: Final = 1 << 20
_PUBLIC: Final = frozenset({"RSA", "EC", "OKP"})
"""Key types that have a public half. Keys for both sides (oct) are never taken from a public place."""


class JwksError(Exception):
    """The set cannot be had; the message says why, without anything that was in it."""


class Source(Protocol):
    """Where a JWK set is."""

    async def fetch(self) -> bytes:
        """Return it as it is written.

        Raises:
            JwksError: it cannot be had.
        """


class FromFile:
    """A JWK set in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self) -> bytes:
        """Return it as it is written."""
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise JwksError(f"{self._path} cannot be read ({error.strerror})") from None


class FromUrl:
    """A JWK set that a server gives."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def fetch(self) -> bytes:
        """Return it as it is written."""
        limits = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=limits, cookie_jar=aiohttp.DummyCookieJar()) as session,
                # A redirect could lead from https to anywhere.
                session.get(self._url, allow_redirects=False) as answer,
            ):
                if answer.status != 200:  # noqa: PLR2004 - OK
                    raise JwksError(f"the server of the keys answers {answer.status}")
                return await _whole(answer.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise JwksError(f"the server of the keys does not answer ({type(error).__name__})") from None


class KeySet:
    """The keys of one provider by their ids.

    Args:
        source: where they are.
        refresh: seconds after which they are fetched again.
        clock: monotonic seconds.
    """

    def __init__(self, source: Source, refresh: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._refresh = refresh
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def key(self, kid: str) -> PyJWK | None:
        """Return the key with that id, or None where the provider has none.

        An id that is not known makes one fetch, at most every `SOONEST` seconds; a token without an id is
        meant for the only key.
        """
        found = self._find(kid)
        if found is None and (self._fetching.locked() or self._may_ask):
            async with self._fetching:
                if self._find(kid) is None and self._may_ask:
                    await self._fetch()
                found = self._find(kid)
        return found

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            pause = self._refresh if await self.fetch() else min(_RETRY, self._refresh)
            await asyncio.sleep(pause)

    async def fetch(self) -> bool:
        """Fetch the keys once; tell whether that went well."""
        async with self._fetching:
            return await self._fetch()

    @property
    def _may_ask(self) -> bool:
        return self._clock() - self._asked_at >= SOONEST

    async def _fetch(self) -> bool:
        self._asked_at = self._clock()
        try:
            keys = keys_in(await self._source.fetch())
        except JwksError as error:
            _log.warning("The public keys for tokens could not be fetched: %s; those known stay.", error)
            return False
        if keys.keys() != self._keys.keys():
            _log.info("%d public keys for tokens are known now.", len(keys))
        self._keys = keys
        return True

    def _find(self, kid: str) -> PyJWK | None:
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)


def keys_in(data: bytes) -> dict[str, PyJWK]:
    """Return the public signing keys of a JWK set, by their ids; others in it are left out.

    Raises:
        JwksError: it is no JWK set, or has no such key.
    """
    try:
        found = msgspec.json.decode(data, type=dict[str, Any]).get("keys")
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, list):
        raise JwksError("it is not a JWK set")
    keys = {str(one.get("kid", "")): key for one in found if (key := _signing_key(one)) is not None}
    if not keys:
        raise JwksError("it has no public key for signatures")
    return keys


def _signing_key(data: Any) -> PyJWK | None:
    if not isinstance(data, dict) or data.get("kty") not in _PUBLIC or data.get("use", "sig") != "sig":
        return None
    try:
        return PyJWK(data)
    except PyJWTError:
        return None


async def _whole(content: aiohttp.StreamReader) -> bytes:
    data = b""
    async for chunk in content.iter_any():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise JwksError(f"it is larger than {_MOST_BYTES} bytes")
    return data
