"""Authentication as the configuration asks for it: put together, kept fresh in the background.

Refuses to know servers and calls.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from router_server.auth.certificates import CertificateNames
from router_server.auth.entrance import Entrance
from router_server.auth.key_file import KeyFile
from router_server.auth.key_store import SharedKeys
from router_server.auth.live_keys import KeyPlace, LiveKeys
from router_server.config.callers import ApiKeysConfig, AuthConfig, JwtConfig
from router_server.core.principal import Authenticator
from router_server.state.store import Store

if TYPE_CHECKING:
    from router_server.auth.jwks import KeySet
    from router_server.auth.tokens import TokenVerifier


class Authentication:
    """What knows the callers of one server.

    Attributes:
        authenticator: knows them.
    """

    def __init__(self, settings: AuthConfig, store: Store) -> None:
        self._keys = None if settings.api_keys is None else _live_keys(settings.api_keys, store)
        self._key_set = None if settings.jwt is None else _key_set(settings.jwt)
        tokens = None
        if settings.jwt is not None and self._key_set is not None:
            tokens = _verifier(settings.jwt, self._key_set)
        certificates = None if settings.mtls is None else CertificateNames(settings.mtls)
        self.authenticator: Authenticator = Entrance(self._keys, tokens, certificates)

    async def prepare(self) -> None:
        """Read what there is; what cannot be read yet is looked for in the background."""
        if self._keys is not None:
            await self._keys.look()
        if self._key_set is not None:
            await self._key_set.fetch()

    async def run(self) -> None:
        """Keep everything fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._keys is not None:
                group.create_task(self._keys.run(), name="API keys")
            if self._key_set is not None:
                group.create_task(self._key_set.run(), name="keys for tokens")


def _live_keys(settings: ApiKeysConfig, store: Store) -> LiveKeys:
    places: list[KeyPlace] = []
    if settings.file is not None:
        places.append(KeyFile(settings.file))
    if settings.redis:
        places.append(SharedKeys(store))
    return LiveKeys(settings.keys, places)


def _key_set(settings: JwtConfig) -> KeySet:
    # Imported where tokens are accepted: with what it needs it takes 40 ms and 9 MiB.
    from router_server.auth.jwks import FromFile, FromUrl, KeySet  # noqa: PLC0415 - see above

    source = FromUrl(settings.jwks) if "://" in settings.jwks else FromFile(Path(settings.jwks))
    return KeySet(source, settings.refresh)


def _verifier(settings: JwtConfig, keys: KeySet) -> TokenVerifier:
    from router_server.auth.tokens import TokenVerifier  # noqa: PLC0415 - as above

    return TokenVerifier(settings, keys)
