"""Mistakes that no single key shows: names that nothing declares, values that contradict each other.

Refuses to know where in a file anything stands, and to call any upstream.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations

from router_server.config.auth_references import check_auth
from router_server.config.problems import Finding, KeyPath, dotted
from router_server.config.routes import WEIGHING, RouteConfig
from router_server.config.tree import Config, ServerConfig, TargetConfig
from router_server.config.values import host_and_port
from router_server.config.wording import did_you_mean
from router_server.core.provider import Capability
from router_server.providers import load_kind

_WILDCARDS = frozenset({"0.0.0.0", "::"})

Names = Mapping[str, frozenset[str] | None]
"""What each section declares, also what is wrong in itself; None: nobody knows. One mistake, one report."""


def check(config: Config, names: Names) -> Iterator[Finding]:
    """Yield what is wrong between the parts of ``config`` that are right in themselves."""
    yield from _empty_sections(names)
    yield from _providers(config)
    yield from _targets(config, names)
    yield from _routes(config, names)
    yield from _workers(config)
    yield from check_auth(config)
    yield from check_server(config.server)


def check_server(server: ServerConfig) -> Iterator[Finding]:
    """Yield addresses that exclude each other, and TLS files that cannot be read."""
    yield from _addresses(server)
    yield from _tls_files(server)


def _empty_sections(names: Names) -> Iterator[Finding]:
    for section, declared in names.items():
        if declared is not None and not declared:
            yield Finding((section,), f"declares none; add one of your {section}")


def _providers(config: Config) -> Iterator[Finding]:
    for name, provider in config.providers.items():
        if provider.adaptive is not None and provider.adaptive.min > provider.max_concurrency:
            yield Finding(("providers", name, "adaptive", "min"), "is more than max_concurrency; lower it")


def _targets(config: Config, names: Names) -> Iterator[Finding]:
    for name, target in config.targets.items():
        declared = names["providers"]
        if declared is not None and target.provider not in declared:
            meant = did_you_mean(target.provider, declared)
            yield Finding(
                ("targets", name, "provider"), f"no provider is called {target.provider!r}; {meant}"
            )
        elif target.provider in config.providers:
            yield from _target(config, name, target)


def _target(config: Config, name: str, target: TargetConfig) -> Iterator[Finding]:
    if not target.model and config.providers[target.provider].kind != "vllm":
        yield Finding(("targets", name, "model"), "is empty; write the upstream's own name of the model")
    breaker = config.breaker(name)
    if breaker.open_max < breaker.open:
        part = ("targets", name) if target.breaker else ("providers", target.provider)
        yield Finding((*part, "breaker", "open_max"), "is shorter than open; make it at least as long")


def _routes(config: Config, names: Names) -> Iterator[Finding]:
    for name, route in config.routes.items():
        path = ("routes", name)
        if not route.targets:
            yield Finding((*path, "targets"), "is empty; name at least one target")
        yield from _route_targets(path, route, names["targets"])
        if route.hedge is not None and len(route.order) == 1 and not _has_endpoints(config, route.order[0]):
            yield Finding((*path, "hedge"), "needs a second target to ask; add one, or remove hedge")
        weighted = [i for i, one in enumerate(route.targets) if "weight" in one.model_fields_set]
        if weighted and route.strategy not in WEIGHING:
            yield Finding(
                (*path, "targets", weighted[0], "weight"),
                f"means nothing to strategy {route.strategy}; use one of {', '.join(WEIGHING)}, or remove it",
            )
        yield from _belonging(path, route)
        yield from _trials(path, route, names["targets"])
        yield from _embedding_spaces(config, name)
    yield from _aliases(config)


def _belonging(path: KeyPath, route: RouteConfig) -> Iterator[Finding]:
    if route.sticky is None:
        return
    if route.affinity is not None:
        yield Finding(
            (*path, "affinity"), "excludes sticky, which says the same otherwise; remove one of them"
        )
    own = [one.target for one in route.targets]
    shares = route.sticky.shares or {}
    for name in shares:
        if name not in own:
            place = (*path, "sticky", "shares", name)
            yield Finding(place, f"is not among the targets of this route; {did_you_mean(name, own)}")
    if shares and route.strategy != "ordered":
        yield Finding(
            (*path, "sticky", "shares"), f"contradict strategy {route.strategy}; remove one of the two"
        )


def _trials(path: KeyPath, route: RouteConfig, declared: frozenset[str] | None) -> Iterator[Finding]:
    trials = {"experiment": route.experiment, "shadow": route.shadow}
    for key, trial in trials.items():
        if trial is not None and declared is not None and trial.target not in declared:
            meant = did_you_mean(trial.target, declared)
            yield Finding((*path, key, "target"), f"no target is called {trial.target!r}; {meant}")
    if route.experiment is not None and route.experiment.target in route.order:
        yield Finding((*path, "experiment", "target"), "answers all other calls too; name another")


def _aliases(config: Config) -> Iterator[Finding]:
    taken = dict.fromkeys(config.routes, "is a route's own name")
    for name, route in config.routes.items():
        for index, alias in enumerate(route.aliases):
            if alias in taken:
                yield Finding(("routes", name, "aliases", index), f"{taken[alias]}; choose another")
            taken.setdefault(alias, f"is an alias of {name} already")


def _has_endpoints(config: Config, target: str) -> bool:
    """Tell whether several endpoints serve a target, so that one can be asked beside another."""
    settings = config.targets.get(target)
    provider = None if settings is None else config.providers.get(settings.provider)
    if provider is None or provider.settings is None:
        return False
    return len(load_kind(provider.kind).endpoints_of(provider.settings)) > 1


def _route_targets(path: KeyPath, route: RouteConfig, declared: frozenset[str] | None) -> Iterator[Finding]:
    places = [(*path, "targets", index) for index in range(len(route.targets))]
    places += [(*path, "fallback", index) for index in range(len(route.fallback))]
    for index, target in enumerate(route.order):
        if declared is not None and target not in declared:
            meant = did_you_mean(target, declared)
            yield Finding(places[index], f"no target is called {target!r}; {meant}")
        elif target in route.order[:index]:
            yield Finding(places[index], f"names {target!r} a second time; remove it")


def _embedding_spaces(config: Config, route: str) -> Iterator[Finding]:
    """Yield a route whose vectors would not be comparable.

    Nearly every chat kind could embed, so a route is about embedding only if one of its targets is.
    """
    able = [
        (name, config.targets[name])
        for name in dict.fromkeys(config.routes[route].everyone)
        if name in config.targets
        and config.targets[name].provider in config.providers
        and Capability.EMBED in config.capabilities(name)
    ]
    if not any(_is_for_embedding(config, name, target) for name, target in able):
        return
    spaces = {name: target.embedding_space or target.model for name, target in able}
    if len(set(spaces.values())) > 1:
        found = ", ".join(f"{name}: {space}" for name, space in spaces.items())
        yield Finding(
            ("routes", route, "targets"),
            f"mixes embedding spaces ({found}), and vectors of two models are not comparable; make a "
            "route for each, set one embedding_space where the models are the same, or "
            "capabilities: {embed: false} where a target only chats",
        )


def _is_for_embedding(config: Config, name: str, target: TargetConfig) -> bool:
    return (
        target.embedding_space is not None
        or Capability.CHAT not in config.capabilities(name)
        or "embed" in target.model.lower()
    )


def _workers(config: Config) -> Iterator[Finding]:
    workers = config.server.workers
    message = "is less than server.workers, among which it is divided; raise it or use fewer workers"
    for name, provider in config.providers.items():
        if provider.max_concurrency < workers:
            yield Finding(("providers", name, "max_concurrency"), message)
        if 0 < provider.max_queue < workers:
            yield Finding(("providers", name, "max_queue"), message)
    for name, target in config.targets.items():
        if target.max_concurrency is not None and target.max_concurrency < workers:
            yield Finding(("targets", name, "max_concurrency"), message)


def _addresses(server: ServerConfig) -> Iterator[Finding]:
    keys = ["listen", "health_listen", "http_listen"]
    if "admin_listen" in server.model_fields_set:
        keys.append("admin_listen")
    used = [(key, address) for key in keys if (address := getattr(server, key))]
    for (first, address), (second, other) in combinations(used, 2):
        if _collide(address, other):
            yield Finding(
                ("server", second), f"takes the port of {dotted(('server', first))}; choose another"
            )


def _collide(one: str, other: str) -> bool:
    first, second = host_and_port(one), host_and_port(other)
    if first is None or second is None:
        return one == other
    if first[1] != second[1] or first[1] == 0:
        return False
    return first[0] == second[0] or bool(_WILDCARDS & {first[0], second[0]})


def _tls_files(server: ServerConfig) -> Iterator[Finding]:
    if server.tls is None:
        return
    for key in ("cert", "key", "client_ca"):
        path = getattr(server.tls, key)
        if path is None:
            continue
        if not path.is_file():
            yield Finding(("server", "tls", key), "no such file; correct the path")
        elif not os.access(path, os.R_OK):
            yield Finding(("server", "tls", key), "the file may not be read; change its owner or its mode")
