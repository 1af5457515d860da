"""The part of the tree that says where calls go: routes, their targets, their strategies.

Refuses to know whether the names that are used are declared: `references` checks that.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from router_server.config.section import Section
from router_server.config.values import Patience, RouteName, Share
from router_server.core.hedge import Percentile
from router_server.core.types import StreamRecovery


class HedgeConfig(Section):
    """When a second target is asked although the first has not failed."""

    after: Patience = Field(
        default=Percentile.P95,
        description="how long the first target is waited for: p50, p90, p95 or p99 of its own times to the "
        "first token (unary: to the answer), or a duration",
    )
    max_extra: Share = Field(default=0.05, description="hedges as a share of the route's calls, at most")


class RouteTarget(Section):
    """A target of a route: its name, or its name and its weight."""

    target: str = Field(description="a name from targets")
    weight: int = Field(
        default=1, ge=1, le=1000, description="its share of the calls, beside the others' weights"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"target": data} if isinstance(data, str) else data


StrategyName = Literal[
    "ordered",
    "weighted",
    "round_robin",
    "least_inflight",
    "least_connections",
    "random",
    "lowest_latency",
    "lowest_cost",
]


WEIGHING: Final = ("weighted", "least_inflight", "least_connections", "random")
"""The strategies to which weights mean something."""


class RouteConfig(Section):
    """A public name for targets."""

    targets: tuple[RouteTarget, ...] = Field(
        description="names from targets, or {target: NAME, weight: N}; the strategy orders them"
    )
    strategy: StrategyName = Field(
        default="ordered",
        description="who is asked first: ordered (as written), weighted, round_robin, least_inflight (or "
        "least_connections), random, lowest_latency or lowest_cost; docs/routing.md",
    )
    fallback: tuple[str, ...] = Field(
        default=(), description="names from targets that are asked in this order after all of those"
    )
    aliases: tuple[RouteName, ...] = Field(
        default=(), description="further names that callers may use for it"
    )
    stream_recovery: StreamRecovery = Field(
        default=StreamRecovery.NONE,
        description="what a stream that breaks does, where the caller does not say: none, restart or resume",
    )
    hedge: HedgeConfig | None = Field(
        default=None, description="ask a second target where the first is late; null: off"
    )

    @property
    def order(self) -> tuple[str, ...]:
        """The names of all its targets as they are written, the fallback last."""
        return (*(one.target for one in self.targets), *self.fallback)
