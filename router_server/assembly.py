"""From the configuration to the core's objects: upstreams, targets, routes, router.

Knows the configuration and the core, nothing of servers, signals or processes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from router_server.admitting import admitted
from router_server.assembled import Assembly
from router_server.caching import caching
from router_server.config.tree import Config, HealthCheckConfig, TargetConfig
from router_server.core.adaptive import Adaptive
from router_server.core.agreement import Agreement
from router_server.core.breaker import BreakerSettings, BreakerState
from router_server.core.budget import Budget
from router_server.core.checks import Checks
from router_server.core.deadline import Timeouts
from router_server.core.endings import Endings
from router_server.core.engine import EngineSpec
from router_server.core.engine_view import EngineView
from router_server.core.funds import Ledger
from router_server.core.limiter import Limiter, Limits
from router_server.core.load import LoadWatch
from router_server.core.observer import Observer
from router_server.core.observers import fan_out
from router_server.core.own_limit import OwnLimit
from router_server.core.prefixes import PrefixOrder
from router_server.core.quotas import Quotas, Subject
from router_server.core.replicas import EndpointOrder, ReplicatedTarget, least_loaded
from router_server.core.route import Destination
from router_server.core.router import Router, RouterSettings, no_direct
from router_server.core.shelf import MemoryShelf, Shelf
from router_server.core.speeds import SpeedBoard
from router_server.core.target import HealthCheck, Target, TargetSettings, Upstream
from router_server.engines.wanted import engine_of
from router_server.inheritance import Change, Heritage, Providers, kept
from router_server.pricing import cost_function
from router_server.providers import load_kind, names
from router_server.routing import Routing
from router_server.shadowing import shadowing
from router_server.spending.opening import are_wanted
from router_server.state.breaker_board import SharedBoard
from router_server.state.claims import SharedClaims
from router_server.state.opening import State
from router_server.state.rota import SharedRota
from router_server.state.store import Store
from router_server.state.windows import SharedQuotas
from router_server.surroundings import process_name, scope_of, surroundings_of

Clock = Callable[[], float]

_MOST_DIRECT_TARGETS = 256
"""Targets that callers may bring into being by naming a model directly; the least recently used one goes."""


def assemble(
    config: Config,
    observer: Observer,
    clock: Clock,
    *,
    changed: Callable[[], None],
    engines: Path | None = None,
    shared: Store | None = None,
    copies: Observer | None = None,
    quotas: Quotas | None = None,
    ledger: Ledger | None = None,
    before: Assembly | None = None,
) -> Assembly:
    """Build the router that ``config`` describes. Opens no connection; `Assembly.begin` puts it into service.

    Args:
        config: valid in itself.
        observer: sees every call.
        clock: monotonic seconds, the event loop's.
        changed: called whenever the health of a target may have changed.
        engines: the folder of the engines' sockets, where there are any.
        shared: what replicas share, or None where each process is on its own.
        copies: sees the copies of calls that shadows are sent; None: ``observer`` does.
        quotas: counts what callers use; None: this process alone does.
        ledger: where budgets are kept; None: nothing has one, whatever ``config`` says.
        before: which assembly this one is to follow; its state goes on for whatever is described alike.

    Raises:
        SetupError: a provider lacks something that only the machine can give.
    """
    quotas = quotas or SharedQuotas(State(None))
    ledger = ledger if are_wanted(config) else None
    heritage, made = (before.heritage, before.providers) if before else (Heritage(), Providers())
    agreement = before.agreement if before else (Agreement(SharedBoard(shared), clock) if shared else None)
    parts = _Parts(config, observer, clock, changed, engines, quotas, heritage, made, agreement)
    providers = {name: parts.upstreams(name) for name in config.providers}
    upstreams = {upstream.unique_name: upstream for group in providers.values() for upstream in group}
    targets = {name: parts.target(name, t, providers[t.provider]) for name, t in config.targets.items()}
    direct = parts.kept_direct(before.direct if before else {}, providers)
    rota = None if shared is None else SharedRota(shared)
    checks = before.checks if before else Checks((), lambda _upstream: (), changed, rota, process_name())
    loads = before.loads if before else LoadWatch[Upstream]((), checks.ask)
    speeds = before.speeds if before else SpeedBoard(clock)
    if any(route.strategy == "lowest_latency" for route in config.routes.values()):
        observer = fan_out((observer, Endings(speeds.ended)))
    routing = Routing(targets, speeds, clock, shared)
    routes = tuple(
        heritage.route(config, name, targets) or heritage.seats(config, routing.route(name, route))
        for name, route in config.routes.items()
    )
    settings = RouterSettings(
        unary_deadline=config.server.deadline.unary,
        stream_deadline=config.server.deadline.stream,
        keep_answers=config.telemetry.record_content,
    )
    router = Router(
        routes,
        checks,
        observer,
        clock=clock,
        settings=settings,
        direct=parts.direct(providers, direct) if config.server.allow_direct else no_direct,
        ledger=ledger,
        addressable=lambda name: name in config.providers or name in _kinds(),
    )
    shadows = shadowing(
        config,
        router,
        targets,
        copies or observer,
        clock=clock,
        settings=settings,
        ledger=ledger,
        before=before.shadows if before else None,
    )
    kept = before.shelf if before else None
    shelf: Shelf = shared or kept or MemoryShelf(config.server.cache_bytes, clock)
    answering = caching(
        config,
        shadows or router,
        router,
        shelf,
        observer=observer,
        clock=clock,
        settings=settings,
        claims=SharedClaims(shared) if shared else None,
    )
    door = admitted(config, answering, router.canonical, quotas)
    return Assembly(
        upstreams,
        targets,
        routes,
        checks,
        loads,
        door,
        config,
        made,
        speeds,
        direct,
        shadows,
        shelf,
        changes=tuple(parts.changes),
        agreement=agreement,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    config: Config
    observer: Observer
    clock: Clock
    changed: Callable[[], None]
    engines: Path | None
    quotas: Quotas
    heritage: Heritage
    made: Providers
    agreement: Agreement | None
    changes: list[Change] = field(default_factory=list)

    def upstreams(self, name: str) -> tuple[Upstream, ...]:
        provider = self.config.providers[name]
        endpoints = load_kind(provider.kind).endpoints_of(provider.settings)
        return tuple(self._upstream(name, endpoint, own) for endpoint, own in endpoints.items())

    def _upstream(self, name: str, endpoint: str, settings: Any) -> Upstream:
        provider = self.config.providers[name]
        limits = Limits(
            provider.max_concurrency, provider.max_queue, provider.queue_timeout, provider.max_wait_boost
        )
        spec = None if self.engines is None else engine_of(self.config, name, self.engines)
        before = self.heritage.upstream(self.config, name, endpoint, spec.key if spec else "")
        limiter = before.limiter if before else Limiter(limits, self.clock)
        goes_on = before and not self.heritage.limits_changed(self.config, name, before, limits)
        if before and not goes_on:
            self.changes.append(partial(limiter.change, limits))
        adaptive = provider.adaptive
        fresh_adaptive = None if adaptive is None else Adaptive(limiter, adaptive.min, self.clock)
        surroundings = surroundings_of(self.config, name, spec.socket if spec else "")
        reached = self.made.get(provider.kind, endpoint, settings, surroundings)
        engine = self.engine(spec, limiter, before)
        fresh = Upstream(
            name=name,
            kind=provider.kind,
            provider=reached,
            limiter=limiter,
            endpoint=endpoint,
            engine=engine,
            own_limit=self.heritage.own_limit(self.config, name, before) or self.own_limit(name),
            adaptive=before.adaptive if before and goes_on else fresh_adaptive,
            retries=provider.retries,
            trace_context=provider.trace_context,
            required=provider.required,
            check=_check(provider.health_check),
            budget=None if provider.budget is None else Budget(f"provider/{name}", provider.budget.terms),
            scope=None if engine else scope_of(reached),
        )
        return kept(before, fresh)

    def own_limit(self, name: str) -> OwnLimit | None:
        """Return what bounds a provider's requests and tokens, where something does."""
        limits = self.config.providers[name].limits
        return None if limits is None else OwnLimit(self.quotas, Subject("provider", name, limits.quota))

    def engine(self, spec: EngineSpec | None, limiter: Limiter, before: Upstream | None) -> EngineView | None:
        """Return the view of a provider's engine, where it has one."""
        if spec is None:
            return None
        if before is None or before.engine is None:
            return EngineView(limiter, spec.key, spec.while_starting, spec.while_waking)
        self.changes.append(partial(before.engine.change, spec.while_starting, spec.while_waking))
        return before.engine

    def target(self, name: str, target: TargetConfig, upstreams: Sequence[Upstream]) -> Destination:
        settings = TargetSettings(
            name=name,
            model=target.model,
            capabilities=self.config.capabilities(name),
            timeouts=self.config.timeouts(name),
            breaker=self.config.breaker(name),
            max_concurrency=target.max_concurrency,
            context_window=target.context_window,
            max_output_tokens=target.max_output_tokens,
            temperature=target.temperature,
            embedding_space=target.embedding_space or "",
            provider_options=target.provider_options,
            cost=cost_function(upstreams[0].kind, target.model, target.price),
        )
        return self._destination(settings, upstreams)

    def _direct_target(self, name: str, model: str, upstreams: Sequence[Upstream]) -> Destination:
        provider = self.config.providers[upstreams[0].name]
        settings = TargetSettings(
            name=name,
            model=model,
            capabilities=load_kind(provider.kind).capabilities_of(provider.settings, model),
            timeouts=Timeouts(**provider.timeouts.model_dump()),
            breaker=BreakerSettings(**provider.breaker.model_dump()),
            cost=cost_function(provider.kind, model, None),
        )
        return self._destination(settings, upstreams)

    def _destination(self, settings: TargetSettings, upstreams: Sequence[Upstream]) -> Destination:
        targets = [self._endpoint(settings, upstream) for upstream in upstreams]
        if len(targets) == 1:
            return targets[0]
        return self.heritage.destination(ReplicatedTarget(settings, targets, self._order(upstreams)))

    def _endpoint(self, settings: TargetSettings, upstream: Upstream) -> Target:
        fresh = Target(settings, upstream, self.clock, on_change=self._breaker_changed)
        target = self.heritage.target(self.config, fresh)
        if target.gate.capacity != settings.max_concurrency:
            self.changes.append(partial(setattr, target.gate, "capacity", settings.max_concurrency))
        return target

    def _order(self, upstreams: Sequence[Upstream]) -> EndpointOrder:
        provider = self.config.providers[upstreams[0].name]
        wanted = load_kind(provider.kind).prefix_affinity
        return PrefixOrder() if wanted is not None and wanted(provider.settings) else least_loaded

    def kept_direct(
        self, before: Mapping[str, Destination], upstreams: Mapping[str, Sequence[Upstream]]
    ) -> OrderedDict[str, Destination]:
        """Return the targets that callers brought into being ``before``, as far as they may still be."""
        allowed = before if self.config.server.allow_direct else {}
        return OrderedDict(
            (name, self._direct_target(name, target.settings.model, upstreams[target.provider]))
            for name, target in allowed.items()
            if target.provider in upstreams
        )

    def direct(
        self, upstreams: Mapping[str, Sequence[Upstream]], known: OrderedDict[str, Destination]
    ) -> Callable[[str, str], Destination | None]:
        """Return what gives the target for a provider and a model that a caller names."""

        def find(provider: str, model: str) -> Destination | None:
            if provider not in upstreams:
                return None
            name = f"{provider}/{model}"
            if name not in known:
                known[name] = self._direct_target(name, model, upstreams[provider])
            known.move_to_end(name)
            if len(known) > _MOST_DIRECT_TARGETS:
                known.popitem(last=False)
            return known[name]

        return find

    def _breaker_changed(self, target: Target, before: BreakerState, after: BreakerState) -> None:
        self.observer.breaker_changed(target.name, target.upstream.name, before.value, after.value)
        if self.agreement is not None:
            self.agreement.changed()
        self.changed()


@cache  # they are read from what is installed, and few calls ask
def _kinds() -> frozenset[str]:
    return frozenset(names())


def _check(check: HealthCheckConfig | None) -> HealthCheck | None:
    return None if check is None else HealthCheck(check.interval, check.timeout)
