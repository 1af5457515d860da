"""From the configuration's routes to the core's: targets, strategy, fallback.

Refuses to know how targets came into being.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from router_server.config.routes import RouteConfig
from router_server.core.hedge import Hedging
from router_server.core.plan import Strategy, ordered
from router_server.core.strategies import (
    AtRandom,
    Choice,
    InTurn,
    LeastInflight,
    LowestCost,
    LowestLatency,
    Rank,
    Speeds,
)
from router_server.core.target import Route, Target
from router_server.core.types import Usage


def route_of(name: str, config: RouteConfig, targets: Mapping[str, Target], speeds: Speeds) -> Route:
    """Return the route ``name`` over ``targets``, which has all that ``config`` names."""
    return Route(
        name,
        tuple(targets[target] for target in config.order),
        strategy=_strategy(config, targets, speeds),
        stream_recovery=config.stream_recovery,
        hedging=None if config.hedge is None else Hedging(config.hedge.after, config.hedge.max_extra),
        aliases=config.aliases,
    )


def _strategy(config: RouteConfig, targets: Mapping[str, Target], speeds: Speeds) -> Strategy:
    if config.strategy == "ordered":
        return ordered
    own = {one.target: targets[one.target] for one in config.targets}
    weights = {one.target: float(one.weight) for one in config.targets}
    return Choice(_rank(config, own, weights, speeds), own, frozenset(config.fallback))


def _rank(
    config: RouteConfig, targets: Mapping[str, Target], weights: Mapping[str, float], speeds: Speeds
) -> Rank:
    match config.strategy:
        case "least_inflight" | "least_connections":
            return LeastInflight(weights, targets)
        case "random":
            return AtRandom(weights, random.random)
        case "lowest_latency":
            return LowestLatency(tuple(targets), speeds, random.random)
        case "lowest_cost":
            limits = {name: target.settings.max_output_tokens for name, target in targets.items()}
            return LowestCost({name: _price(target) for name, target in targets.items()}, limits)
        case _:
            return InTurn(weights)


def _price(target: Target) -> Callable[[int, int], int | None]:
    return lambda prompt, output: target.settings.cost(Usage(prompt, output))
