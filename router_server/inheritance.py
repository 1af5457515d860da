"""What an assembly takes over from the one before it: whatever the configuration still describes alike.

Looks only, and changes nothing of what is in use: a new assembly may yet be refused. Refuses to know when
one follows another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from router_server.config.tree import Config
from router_server.core.limiter import Limits
from router_server.core.own_limit import OwnLimit
from router_server.core.provider import Provider, Surroundings
from router_server.core.replicas import ReplicatedTarget
from router_server.core.route import Destination, Route
from router_server.core.target import Target, Upstream
from router_server.providers import load_kind


@dataclass(frozen=True, slots=True)
class _Recipe:
    kind: str
    endpoint: str
    settings: Any = field(repr=False)
    surroundings: Surroundings


class Providers:
    """The providers of all assemblies that live: whoever wants one that is there already gets that one."""

    def __init__(self) -> None:
        self._made: list[tuple[_Recipe, Provider]] = []

    def get(self, kind: str, endpoint: str, settings: Any, surroundings: Surroundings) -> Provider:
        """Return the provider with these settings.

        Raises:
            SetupError: it lacks something that only the machine can give.
        """
        recipe = _Recipe(kind, endpoint, settings, surroundings)
        for known, provider in self._made:
            if known == recipe:
                return provider
        provider = load_kind(kind).create(settings, surroundings)
        self._made.append((recipe, provider))
        return provider

    async def close_all_but(self, used: Collection[Provider]) -> None:
        """Close whatever is not in ``used``."""
        kept = {id(provider) for provider in used}
        gone = [provider for _, provider in self._made if id(provider) not in kept]
        self._made = [made for made in self._made if id(made[1]) in kept]
        for provider in gone:
            await provider.close()


@dataclass(frozen=True, slots=True)
class Heritage:
    """What is there to be taken over; nothing, by default."""

    config: Config = field(default_factory=Config)
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)

    def upstream(self, config: Config, name: str, endpoint: str, engine: str) -> Upstream | None:
        """Return what speaks to the same API in the same way as this endpoint of a provider of ``config``.

        Args:
            config: the new one.
            name: of the provider.
            endpoint: of the provider, empty where there is one only.
            engine: the key of the provider's engine, empty where it has none.
        """
        before = self.upstreams.get(f"{name}@{endpoint}" if endpoint else name)
        if before is None or name not in self.config.providers:
            return None
        was, now = self.config.providers[name], config.providers[name]
        if was.kind != now.kind:
            return None
        kind = load_kind(now.kind)
        same = kind.endpoints_of(was.settings).get(endpoint) == kind.endpoints_of(now.settings)[endpoint]
        # What the same engine has learnt and taken on stays, whatever else of its provider has changed.
        same_engine = before.engine is not None and before.engine.key == engine
        return before if same or same_engine else None

    def limits_changed(self, config: Config, name: str, before: Upstream, limits: Limits) -> bool:
        """Tell whether the places of ``before`` are to be counted anew."""
        return (
            before.limiter.limits != limits
            or self.config.providers[name].adaptive != config.providers[name].adaptive
        )

    def own_limit(self, config: Config, name: str, before: Upstream | None) -> OwnLimit | None:
        """Return what bounds the provider already, in the same words; else None."""
        if before is None or self.config.providers[name].limits != config.providers[name].limits:
            return None
        return before.own_limit

    def target(self, config: Config, fresh: Target) -> Target:
        """Return ``fresh`` with what the same model has learnt; the target itself where it is the same."""
        before = self._target(fresh)
        if before is None:
            return fresh
        name = fresh.configured
        same_words = self.config.targets.get(name) == config.targets.get(name)
        if before.upstream is fresh.upstream and before.settings == fresh.settings and same_words:
            return before
        fresh.inherit(before)
        return fresh

    def destination(self, fresh: ReplicatedTarget) -> Destination:
        """Return the target itself where neither it nor any endpoint has changed, else ``fresh``."""
        before = self.destinations.get(fresh.configured)
        if before is None or before.endpoints != fresh.endpoints or before.settings != fresh.settings:
            return fresh
        return before

    def route(self, config: Config, name: str, targets: Mapping[str, Destination]) -> Route | None:
        """Return the route that has not changed, nor have its targets; None where it is to be made anew."""
        before = self.routes.get(name)
        if before is None or self.config.routes.get(name) != config.routes[name]:
            return None
        now = [targets[target] for target in config.routes[name].everyone]
        return before if list(before.targets) == now else None

    def seats(self, config: Config, fresh: Route) -> Route:
        """Return ``fresh``, where users keep their targets if it is by the same that they are told apart."""
        before = self.routes.get(fresh.name)
        if before is None or before.allocation is None or fresh.allocation is None:
            return fresh
        was, now = self.config.routes[fresh.name].sticky, config.routes[fresh.name].sticky
        if was is not None and now is not None and was.by == now.by:
            fresh.allocation.take_over(before.allocation)
        return fresh

    def _target(self, fresh: Target) -> Target | None:
        destination = self.destinations.get(fresh.configured)
        for before in destination.endpoints if destination else ():
            same_place = before.upstream.limiter is fresh.upstream.limiter
            if same_place and before.settings.model == fresh.settings.model:
                return before
        return None


def kept(before: Upstream | None, fresh: Upstream) -> Upstream:
    """Return ``fresh`` with what is known of ``before``; ``before`` itself where both are the same."""
    if before is None:
        return fresh
    heir = replace(
        fresh,
        healthy=before.healthy,
        checked=before.checked,
        last_check=before.last_check,
        last_failed_check=before.last_failed_check,
        load=before.load,
    )
    same = all(getattr(before, one.name) == getattr(heir, one.name) for one in fields(Upstream))
    return before if same else heir


def used_by(upstreams: Iterable[Upstream]) -> list[Provider]:
    """Return their providers."""
    return [upstream.provider for upstream in upstreams]


Change = Callable[[], None]
"""Something that is done to what is in use once the new assembly takes over."""
