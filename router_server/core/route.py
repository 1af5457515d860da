"""A public name, what it leads to, and by which rules: the route as it lives in a running router.

Refuses to decide anything: `plan` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router_server.core.allocation import Allocation
from router_server.core.budget import Budget
from router_server.core.experiment import Experiment
from router_server.core.hedge import Hedging
from router_server.core.occupancy import Occupancy
from router_server.core.plan import Prospect, Strategy, ordered
from router_server.core.target import Target, TargetSettings
from router_server.core.types import StreamRecovery


class Destination(Occupancy, Prospect, Protocol):
    """What a route leads to: a `Target`, or one that several endpoints serve."""

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def settings(self) -> TargetSettings:
        """What the configuration says."""

    @property
    def endpoints(self) -> tuple[Target, ...]:
        """Whoever serves it."""

    @property
    def serving(self) -> bool:
        """Tell whether calls go there by choice."""

    @property
    def takes_calls(self) -> bool:
        """Tell whether calls go there by choice, or would wake its engine."""

    @property
    def available(self) -> bool:
        """Tell whether a call would go there now."""


@dataclass(frozen=True, slots=True)
class Route:
    """A public name and the targets behind it, in order; ``hedging`` None: no call is hedged.

    ``aliases`` are further names that callers may use; the route's own is the one in telemetry.
    ``allocation``: users are allotted to targets. ``experiment``: a share of the calls goes elsewhere.
    """

    name: str
    targets: tuple[Destination, ...]
    strategy: Strategy = ordered
    stream_recovery: StreamRecovery = StreamRecovery.NONE
    hedging: Hedging | None = None
    aliases: tuple[str, ...] = ()
    allocation: Allocation | None = None
    experiment: Experiment | None = None
    budget: Budget | None = None
    endpoints: Mapping[str, Target] = field(init=False, repr=False, compare=False)
    """Whoever serves it, by name: made once, as 200 targets would cost every call 20 µs."""
    providers: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The providers of its targets."""

    def __post_init__(self) -> None:
        """Fill in what follows from the targets."""
        endpoints = {endpoint.name: endpoint for target in self.targets for endpoint in target.endpoints}
        object.__setattr__(self, "endpoints", endpoints)
        object.__setattr__(self, "providers", {target.configured: target.provider for target in self.targets})
