"""From the configuration's routes to the core's: targets, strategy, fallback, who keeps which target.

Refuses to know how targets came into being.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from router_server.config.routes import ExperimentConfig, RouteConfig, StickyConfig
from router_server.core.affinity import Affinity, KeyOf, label_of, user_of
from router_server.core.allocation import Allocation
from router_server.core.budget import Budget
from router_server.core.experiment import Experiment
from router_server.core.hedge import Hedging
from router_server.core.homes import Balance, Homes, HomesByLoad, HomesByPreference, HomesByShare
from router_server.core.plan import Strategy, ordered
from router_server.core.route import Destination, Route
from router_server.core.shared import SharedValues
from router_server.core.strategies import (
    AtRandom,
    Balanced,
    Choice,
    InTurn,
    LeastInflight,
    LowestCost,
    LowestLatency,
    Rank,
    Speeds,
)
from router_server.core.types import Usage
from router_server.state.store import key

_FEATURE = "sticky"


def shares_key(route: str) -> str:
    """Return the name under which the shares of ``route`` are kept that were changed at run time."""
    return key(_FEATURE, route, "shares")


@dataclass(frozen=True, slots=True)
class Routing:
    """What all routes are made from.

    Attributes:
        targets: of the configuration.
        speeds: what is known of how quick they are.
        clock: monotonic seconds.
        shared: what replicas share, or None.
    """

    targets: Mapping[str, Destination]
    speeds: Speeds
    clock: Callable[[], float]
    shared: SharedValues | None = None

    def route(self, name: str, config: RouteConfig) -> Route:
        """Return the route ``name``; every target that ``config`` names is there."""
        parts = _Parts(config, self.targets, self.speeds)
        return Route(
            name,
            tuple(self.targets[target] for target in config.everyone),
            strategy=parts.strategy(),
            stream_recovery=config.stream_recovery,
            hedging=None if config.hedge is None else Hedging(config.hedge.after, config.hedge.max_extra),
            aliases=config.aliases,
            allocation=None if config.sticky is None else self._allocation(name, config.sticky, parts),
            experiment=None if config.experiment is None else _experiment(config.experiment),
            budget=None if config.budget is None else Budget(f"route/{name}", config.budget.terms),
        )

    def _allocation(self, route: str, sticky: StickyConfig, parts: _Parts) -> Allocation:
        return Allocation(
            _key_of(sticky.by),
            parts.homes(sticky.shares),
            parts.stand_ins(),
            clock=self.clock,
            ttl=sticky.ttl,
            shared=self.shared,
            name_key=partial(key, _FEATURE, route, "seat"),
            shares_key=shares_key(route),
            route=route,
        )


class _Parts:
    """One route's targets, weights and ranks."""

    def __init__(self, config: RouteConfig, targets: Mapping[str, Destination], speeds: Speeds) -> None:
        self._config = config
        self._own = {one.target: targets[one.target] for one in config.targets}
        self._weights = {one.target: float(one.weight) for one in config.targets}
        self._speeds = speeds

    def strategy(self) -> Strategy:
        plain = self._plain()
        affinity = self._config.affinity
        return plain if affinity is None else Affinity(_key_of(affinity.by), self._weights, plain)

    def homes(self, shares: Mapping[str, float] | None) -> Homes:
        cheapest = _cheapest(self._own)
        balance = Balance(self._own, cheapest)
        if shares is not None:
            return HomesByShare(shares, balance)
        if self._config.allots_by_share:
            return HomesByShare(self._weights, balance)
        match self._config.strategy:
            case "ordered":
                return HomesByPreference(frozenset(self._own), ordered, balance)
            case "lowest_cost":
                return HomesByPreference(frozenset(self._own), cheapest, balance)
            case _:
                return HomesByLoad(frozenset(self._own), balance)

    def stand_ins(self) -> Strategy:
        return self._chosen(_balanced(self._weights, self._own))

    def _plain(self) -> Strategy:
        return ordered if self._config.strategy == "ordered" else self._chosen(self._rank())

    def _chosen(self, rank: Rank) -> Strategy:
        return Choice(rank, self._own, frozenset(self._config.fallback))

    def _rank(self) -> Rank:
        match self._config.strategy:
            case "least_inflight" | "least_connections":
                return LeastInflight(self._weights, self._own)
            case "random":
                return AtRandom(self._weights, random.random)
            case "lowest_latency":
                return LowestLatency(tuple(self._own), self._speeds, random.random)
            case "lowest_cost":
                return _cheapest(self._own)
            case _:
                return InTurn(self._weights)


def _balanced(weights: Mapping[str, float], targets: Mapping[str, Destination]) -> Balanced:
    return Balanced(weights, targets, _cheapest(targets))


def _cheapest(targets: Mapping[str, Destination]) -> LowestCost:
    limits = {name: target.settings.max_output_tokens for name, target in targets.items()}
    return LowestCost({name: _price(target) for name, target in targets.items()}, limits)


def _price(target: Destination) -> Callable[[int, int], int | None]:
    return lambda prompt, output: target.settings.cost(Usage(prompt, output))


def _experiment(config: ExperimentConfig) -> Experiment:
    name = config.name or config.target
    key_of = None if config.by is None else _key_of(config.by)
    return Experiment(name, config.target, config.share, random.random, key_of)


def _key_of(by: str) -> KeyOf:
    kind, _, name = by.partition(":")
    return label_of(name) if kind == "label" else user_of
