"""From the configuration to the router of the copies: targets of their own over the same providers.

Their places, breakers and rests are their own, so that nothing which becomes of a copy is held against a
target that answers calls. Refuses to know when a copy is made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from router_server.config.routes import RouteConfig, ShadowConfig
from router_server.config.tree import Config
from router_server.core.budget import Budget
from router_server.core.checks import Checks
from router_server.core.experiment import Experiment
from router_server.core.funds import Ledger
from router_server.core.limiter import Limiter, Limits
from router_server.core.observer import Observer
from router_server.core.replicas import ReplicatedTarget
from router_server.core.route import Destination, Route
from router_server.core.router import Router, RouterSettings
from router_server.core.service import CallRouter
from router_server.core.shadow import SHADOW, Shadows, ShadowSettings
from router_server.core.target import Target


def shadowing(
    config: Config,
    router: CallRouter,
    targets: Mapping[str, Destination],
    observer: Observer,
    *,
    clock: Callable[[], float],
    settings: RouterSettings,
    ledger: Ledger | None = None,
    before: Shadows | None = None,
) -> Shadows | None:
    """Return ``router`` with shadows, or None where no route has one.

    Args:
        config: says which routes do.
        router: answers the calls.
        targets: of the configuration.
        observer: sees the copies.
        clock: monotonic seconds.
        settings: deadlines and the like.
        ledger: where budgets are kept, which pay for copies too.
        before: whom these shadows follow.
    """
    shadowed = list(_shadowed(config))
    if not shadowed:
        return None
    routes = [_route(name, route, shadow, targets, clock) for name, route, shadow in shadowed]
    nobody = Checks((), lambda _upstream: (), lambda: None)
    copies = Router(routes, nobody, observer, clock=clock, settings=settings, ledger=ledger)
    shadows = [
        ShadowSettings(name, (name, *route.aliases), shadow.share, shadow.max_copies)
        for name, route, shadow in shadowed
    ]
    return Shadows(router, copies, shadows, random.random, before)


def most_copies(config: Config, provider: str) -> int:
    """Return how many copies ``provider`` may be sent at once."""
    return sum(
        shadow.max_copies
        for _name, _route, shadow in _shadowed(config)
        if config.targets[shadow.target].provider == provider
    )


def _shadowed(config: Config) -> Iterator[tuple[str, RouteConfig, ShadowConfig]]:
    for name, route in config.routes.items():
        if route.shadow is not None:
            yield name, route, route.shadow


def _route(
    name: str,
    route: RouteConfig,
    shadow: ShadowConfig,
    targets: Mapping[str, Destination],
    clock: Callable[[], float],
) -> Route:
    original = targets[shadow.target]
    limits = Limits(max_concurrency=shadow.max_copies, max_queue=0)
    endpoints = [
        Target(
            original.settings,
            replace(endpoint.upstream, limiter=Limiter(limits, clock), adaptive=None),
            clock,
        )
        for endpoint in original.endpoints
    ]
    return Route(
        f"{name}:{SHADOW}",
        (endpoints[0] if len(endpoints) == 1 else ReplicatedTarget(original.settings, endpoints),),
        aliases=(name, *route.aliases),
        experiment=Experiment(SHADOW, shadow.target, 1.0, random.random),
        budget=None if route.budget is None else Budget(f"route/{name}", route.budget.terms),
    )
