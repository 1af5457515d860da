"""From the configuration to the router that gives answers again. Refuses to know what is behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from router_server.config.tree import Config
from router_server.core.caching import CacheSettings, CachingRouter
from router_server.core.replay import Shelf
from router_server.core.service import CallRouter
from router_server.state.store import key


def caching(config: Config, router: CallRouter, canonical: Callable[[str], str], shelf: Shelf) -> CallRouter:
    """Return ``router`` with what is kept before it, or itself where nothing ever is."""
    caches = {
        name: CacheSettings(route.cache.ttl, route.cache.across_keys)
        for name, route in config.routes.items()
        if route.cache is not None
    }
    ttl = config.server.idempotency_ttl
    if not caches and ttl <= 0:
        return router
    return CachingRouter(
        router, canonical, caches, idempotency_ttl=ttl, shelf=shelf, name_key=partial(key, "cache")
    )
