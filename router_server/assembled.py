"""Everything that answers calls in one process, as one configuration describes it.

Refuses to know how it is built, and when one follows another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from router_server.config.tree import Config
from router_server.core.agreement import Agreement
from router_server.core.checks import Checks
from router_server.core.engine_view import EngineView
from router_server.core.load import LoadWatch
from router_server.core.moves import Moves
from router_server.core.provider import ReportsLoad
from router_server.core.route import Destination, Route
from router_server.core.service import CallRouter
from router_server.core.shadow import ShadowCount, Shadows
from router_server.core.shelf import Shelf
from router_server.core.speeds import SpeedBoard
from router_server.core.status import TargetSnapshot
from router_server.core.target import Target, Upstream
from router_server.glance import snapshot_of
from router_server.inheritance import Change, Heritage, Providers


@dataclass(slots=True)
class Assembly:
    """Everything that answers calls, and the means to look at it.

    Attributes:
        upstreams: by name: the provider's, or ``provider@endpoint`` where it has several endpoints.
        destinations: what routes lead to, by the targets' names in the configuration.
        routes: by whom calls are routed.
        checks: ask upstreams how they are; to be run.
        loads: ask engines how busy they are; to be run.
        router: answers calls.
        config: what all of it was built from.
        providers: those of every assembly in this process.
        speeds: what is known of how quick targets are.
        direct: targets that callers brought into being.
        shadows: send copies of calls, where any route has a shadow.
        shelf: where answers are kept that may be given again.
        changes: what `begin` does to limits that are in use already.
        agreement: tells other replicas of breakers, and hears of theirs; to be run; None: nothing is shared.
    """

    upstreams: dict[str, Upstream]
    destinations: dict[str, Destination]
    routes: tuple[Route, ...]
    checks: Checks
    loads: LoadWatch[Upstream]
    router: CallRouter
    config: Config
    providers: Providers
    speeds: SpeedBoard
    direct: OrderedDict[str, Destination] = field(default_factory=OrderedDict)
    shadows: Shadows | None = None
    shelf: Shelf | None = None
    changes: Sequence[Change] = ()
    agreement: Agreement | None = None

    @property
    def targets(self) -> dict[str, Target]:
        """Every configured target by name, endpoint by endpoint where it has several."""
        return {one.name: one for target in self.destinations.values() for one in target.endpoints}

    @property
    def ready(self) -> bool:
        """Tell whether every provider that is required is well: of several endpoints, one at least."""
        required = [upstream for upstream in self.upstreams.values() if upstream.required]
        well = {upstream.name for upstream in required if upstream.ready}
        return all(upstream.name in well for upstream in required)

    def snapshot(self) -> Sequence[TargetSnapshot]:
        """Return every configured target as it is now, endpoint by endpoint."""
        return [snapshot_of(target) for target in self.targets.values()]

    @property
    def engines(self) -> dict[str, EngineView]:
        """The views of engines, by the provider's name."""
        return {name: one.engine for name, one in self.upstreams.items() if one.engine is not None}

    def copies(self) -> Sequence[ShadowCount]:
        """Return what became of the copies of calls, by route."""
        return () if self.shadows is None else self.shadows.counts

    def moves(self) -> Sequence[Moves]:
        """Return what became of users who are allotted to targets, by route."""
        return [route.allocation.moves for route in self.routes if route.allocation is not None]

    @property
    def heritage(self) -> Heritage:
        """What the next assembly may take over."""
        routes = {route.name: route for route in self.routes}
        return Heritage(self.config, self.upstreams, {**self.direct, **self.destinations}, routes)

    def targets_of(self, upstream: Upstream) -> Sequence[Target]:
        """Return whatever ``upstream`` serves."""
        known = (*self.destinations.values(), *self.direct.values())
        return [one for target in known for one in target.endpoints if one.upstream is upstream]

    def begin(self) -> None:
        """Apply new limits, and let checks look after these upstreams and no others. Takes no time."""
        for change in self.changes:
            change()
        upstreams = list(self.upstreams.values())
        self.checks.change(upstreams, self.targets_of)
        self.loads.change([(one, one.provider) for one in upstreams if isinstance(one.provider, ReportsLoad)])
        if self.agreement is not None:
            self.agreement.change(
                (one.upstream.shared_name(name), one.breaker)
                for name, one in self.targets.items()
                if one.upstream.scope is not None
            )
        for upstream in upstreams:
            upstream.limiter.admit()
            if upstream.engine is not None:
                upstream.engine.changed = partial(self.checks.engine_changed, upstream)

    def duties(self) -> Iterator[tuple[Coroutine[None, None, None], str]]:
        """Give what is to be done beside the calls, and its name; also for every assembly that follows."""
        yield self.checks.run(), "active checks"
        yield self.loads.run(), "engine loads"
        if self.agreement is not None:
            yield self.agreement.run(), "breakers of replicas"

    async def copies_ended(self) -> None:
        """Return once no copy of a call runs; for an assembly whose last call has ended."""
        if self.shadows is not None:
            await self.shadows.ended()

    async def close(self) -> None:
        """End what runs beside the calls, and close every upstream of this assembly and those before it."""
        if self.shadows is not None:
            await self.shadows.close()
        await self.providers.close_all_but(())
