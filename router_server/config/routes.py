"""The part of the tree that says where calls go: routes, their targets, their strategies.

Refuses to know whether the names that are used are declared: `references` checks that.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from router_server.config.budgets import BudgetConfig
from router_server.config.callers import RatesConfig
from router_server.config.section import Section
from router_server.config.values import Belonging, Count, Patience, RouteName, Share, Timeout
from router_server.core.hedge import Percentile
from router_server.core.types import StreamRecovery


class StickyConfig(Section):
    """Users keep the target that they were allotted."""

    by: Belonging = Field(
        default="user_id", description="who a call belongs to: user_id, or label:NAME for a label of the call"
    )
    ttl: Timeout = Field(default=3600.0, description="from the allotment until a user is allotted anew")
    shares: dict[RouteName, float] | None = Field(
        default=None, description="of the users, by target; null: as the strategy and the weights say"
    )

    @field_validator("shares")
    @classmethod
    def _are_more_than_nothing(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is not None and (not shares or min(shares.values()) <= 0):
            raise ValueError("must be numbers above 0, for example {a: 0.8, b: 0.2}")
        return shares


class AffinityConfig(Section):
    """Calls that belong together go to the same target, with nothing kept."""

    by: Belonging = Field(
        description="what a call belongs to: user_id, or label:NAME for a label of the call"
    )


class ExperimentConfig(Section):
    """A share of the calls asks a new target first, and is told apart from the others."""

    target: str = Field(description="a name from targets; the other calls never ask it")
    share: Share = Field(description="of the calls, or of the users, above 0 and at most 1")
    name: str | None = Field(
        default=None, min_length=1, max_length=64, description="of the arm, in traces; null: the target's"
    )
    by: Belonging | None = Field(
        default=None, description="who keeps an arm: user_id or label:NAME; null: each call by chance"
    )


class ShadowConfig(Section):
    """A share of the calls is sent to another target too; what that answers is thrown away."""

    target: str = Field(description="a name from targets")
    share: Share = Field(default=1.0, description="of the calls, above 0 and at most 1")
    max_copies: Count = Field(default=4, description="copies at once; more are dropped, and counted")


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


class CacheConfig(Section):
    """Answers that are given again to the same question."""

    ttl: Timeout = Field(default=86_400.0, description="how long an answer is kept")
    across_keys: bool = Field(
        default=False, description="give one caller's answers to others too; false: each has its own"
    )


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
    limits: RatesConfig | None = Field(
        default=None, description="how much all its callers together may use; null: any amount"
    )
    aliases: tuple[RouteName, ...] = Field(
        default=(), description="further names that callers may use for it"
    )
    sticky: StickyConfig | None = Field(default=None, description="users keep their target; null: off")
    affinity: AffinityConfig | None = Field(
        default=None, description="calls of one key go to one target, by rendezvous hashing; null: off"
    )
    experiment: ExperimentConfig | None = Field(
        default=None, description="try a new target with a share of the calls; null: off"
    )
    shadow: ShadowConfig | None = Field(
        default=None, description="send copies of calls to another target; null: off"
    )
    stream_recovery: StreamRecovery = Field(
        default=StreamRecovery.NONE,
        description="what a stream that breaks does, where the caller does not say: none, restart or resume",
    )
    hedge: HedgeConfig | None = Field(
        default=None, description="ask a second target where the first is late; null: off"
    )
    cache: CacheConfig | None = Field(
        default=None, description="give answers again at temperature 0, or where asked for; null: off"
    )
    budget: BudgetConfig | None = Field(
        default=None, description="what its calls may spend; null: any sum, see docs/budgets.md"
    )

    @property
    def allots_by_share(self) -> bool:
        """Tell whether its users are allotted in proportion to shares, where it is sticky."""
        shares = self.sticky is not None and self.sticky.shares is not None
        return shares or self.strategy in {"weighted", "round_robin", "random"}

    @property
    def everyone(self) -> tuple[str, ...]:
        """The names of all targets that may answer a call, that of an experiment last."""
        return self.order if self.experiment is None else (*self.order, self.experiment.target)

    @property
    def order(self) -> tuple[str, ...]:
        """The names of all its targets as they are written, the fallback last."""
        return (*(one.target for one in self.targets), *self.fallback)
