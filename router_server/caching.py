"""From the configuration to the router that gives answers again. Refuses to know what is behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial

from router_server.config.tree import Config
from router_server.core.caching import CacheSettings, CachingRouter, Names
from router_server.core.claim import Claims
from router_server.core.observer import Observer
from router_server.core.packing import digest
from router_server.core.router import RouterSettings
from router_server.core.service import CallRouter
from router_server.core.shelf import Shelf
from router_server.state.store import key


def caching(
    config: Config,
    router: CallRouter,
    names: Names,
    shelf: Shelf,
    *,
    observer: Observer,
    clock: Callable[[], float],
    settings: RouterSettings,
    claims: Claims | None = None,
) -> CallRouter:
    """Return ``router`` with what is kept before it, or itself where nothing ever is.

    Args:
        config: says what is kept, and for how long.
        router: answers.
        names: of routes.
        shelf: where answers are kept.
        observer: is told of the calls that ``router`` does not see.
        clock: monotonic seconds.
        settings: deadlines and the like.
        claims: of all processes that share ``shelf``; None: there is this one alone.
    """
    caches = {
        name: CacheSettings(route.cache.ttl, route.cache.across_keys, _models(config, route.everyone))
        for name, route in config.routes.items()
        if route.cache is not None
    }
    ttl = config.server.idempotency_ttl
    if not caches and ttl <= 0:
        return router
    return CachingRouter(
        router,
        names,
        caches,
        idempotency_ttl=ttl,
        shelf=shelf,
        name_key=partial(key, "cache"),
        observer=observer,
        clock=clock,
        settings=settings,
        claims=claims,
    )


def _models(config: Config, targets: Iterable[str]) -> str:
    """Return the same for the same models with the same settings, whatever they are called and wherever."""
    ones = [config.targets[name] for name in targets]
    overrides = {"max_output_tokens", "temperature", "provider_options"}
    said = {
        json.dumps(
            [config.providers[one.provider].kind, one.model, one.model_dump(mode="json", include=overrides)],
            sort_keys=True,
        )
        for one in ones
    }
    return digest(*sorted(said))
