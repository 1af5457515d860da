"""A route in plain words: whom it asks, and in which order. Refuses to know how that is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router_server.config.routes import WEIGHING, ExperimentConfig, RouteConfig

_HOW: Final = {
    "weighted": "by weight",
    "round_robin": "in turn",
    "least_inflight": "whichever has the fewest calls",
    "least_connections": "whichever has the fewest calls",
    "random": "at random",
    "lowest_latency": "whichever begins soonest",
    "lowest_cost": "whichever is cheapest for the call",
}


def route_words(route: RouteConfig, named: Callable[[str], str] = str) -> str:
    """Return for example ``a (4 of 5) or b (1 of 5) by weight, then c``; ``named`` gives a target's name."""
    also = f"; also called {', '.join(route.aliases)}" if route.aliases else ""
    return _order(route, named) + _belonging(route, named) + _trials(route, named) + _cache(route) + also


def _cache(route: RouteConfig) -> str:
    if route.cache is None:
        return ""
    whose = " for all callers together" if route.cache.across_keys else ""
    return f"; answers kept for {route.cache.ttl:g}s{whose}"


def _trials(route: RouteConfig, named: Callable[[str], str]) -> str:
    words = ""
    if route.experiment is not None:
        words += _experiment(route.experiment, named)
    if route.shadow is not None:
        words += f"; copies of {route.shadow.share:.2g} of the calls to {named(route.shadow.target)}"
    return words


def _experiment(experiment: ExperimentConfig, named: Callable[[str], str]) -> str:
    by = "" if experiment.by is None else f", by {_key(experiment.by)}"
    called = "" if experiment.name is None else f", called {experiment.name}"
    return f"; first {named(experiment.target)} for {experiment.share:.2g} of the calls{by}{called}"


def _belonging(route: RouteConfig, named: Callable[[str], str]) -> str:
    if route.affinity is not None:
        return f"; the same for each {_key(route.affinity.by)}"
    if route.sticky is None:
        return ""
    shares = route.sticky.shares or {}
    parts = ", ".join(f"{named(name)} {share / sum(shares.values()):.0%}" for name, share in shares.items())
    return (
        f"; kept for each {_key(route.sticky.by)} for {route.sticky.ttl:g}s{f' ({parts})' if parts else ''}"
    )


def _key(by: str) -> str:
    return by.replace("label:", "label ")


def _order(route: RouteConfig, named: Callable[[str], str]) -> str:
    if route.strategy == "ordered":
        return ", then ".join(map(named, route.order))
    own = " or ".join(f"{named(one.target)}{_share(route, one.weight)}" for one in route.targets)
    how = f" {_HOW[route.strategy]}" if len(route.targets) > 1 else ""
    return ", then ".join((own + how, *map(named, route.fallback)))


def _share(route: RouteConfig, weight: int) -> str:
    total = sum(one.weight for one in route.targets)
    uneven = len({one.weight for one in route.targets}) > 1
    return f" ({weight} of {total})" if uneven and route.strategy in WEIGHING else ""
