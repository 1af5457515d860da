"""Who knows the callers now: one `Authentication` after another, as configurations come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from router_server.config.callers import AuthConfig
from router_server.core.principal import Authenticator
from router_server.state.store import Store

if TYPE_CHECKING:
    from router_server.auth.opening import Authentication


class CurrentCallers:
    """Begins with nobody asking who calls.

    Args:
        store: where keys may be kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._config: AuthConfig | None = None
        self._current: Authentication | None = None
        self._coming: tuple[AuthConfig | None, Authentication | None] = (None, None)
        self._work: asyncio.Task[None] | None = None

    @property
    def authenticator(self) -> Authenticator | None:
        """Who knows them; None: nobody asks."""
        return None if self._current is None else self._current.authenticator

    async def prepare(self, config: AuthConfig | None) -> None:
        """Read what ``config`` names; nothing that is in use changes until `follow`."""
        if config == self._config:
            self._coming = (config, self._current)
            return
        if config is None:
            self._coming = (None, None)
            return
        from router_server.auth.opening import Authentication  # noqa: PLC0415 - PyJWT takes 0.1 s to load

        authentication = Authentication(config, self._store)
        await authentication.prepare()
        self._coming = (config, authentication)

    def follow(self) -> None:
        """Go by what was prepared."""
        before = self._current
        self._config, self._current = self._coming
        if self._current is before:
            return
        if self._work is not None:
            self._work.cancel()
        self._work = None
        if self._current is not None:
            self._work = asyncio.create_task(self._current.run(), name="authentication")

    async def close(self) -> None:
        """End what keeps it fresh."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
