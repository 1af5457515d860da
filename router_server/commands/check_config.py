"""``check-config``: every mistake of a file, or what it serves. Calls no upstream."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from router_server.commands.exits import Exit
from router_server.commands.terminal import name_mistakes, say, warn
from router_server.config import Config, ConfigError, load, warnings_of
from router_server.config.budgets import BudgetConfig, budget_words
from router_server.config.callers import RatesConfig
from router_server.config.route_words import route_words
from router_server.pricing import warnings_of_prices


def run(arguments: argparse.Namespace) -> Exit:
    """Check the file; return what came of it."""
    try:
        config = load(arguments.file, os.environ)
    except ConfigError as error:
        return name_mistakes(error)
    say(f"{arguments.file} is valid. Its routes:")
    width = max(map(len, config.routes))
    for name, route in config.routes.items():
        say(f"  {name:<{width}}  {route_words(route)}")
    if config.redis is not None:
        say(f"Replicas share their state in {config.redis}.")
    for line in (*_callers(config), *_limits(config)):
        say(line)
    for line in _budgets(config):
        say(line)
    if config.alerts is not None:
        say(f"A webhook is told when a target has been down, or back, for {config.alerts.after:g}s.")
    warn((*warnings_of(config), *warnings_of_prices(config)))
    return Exit.OK


def _limits(config: Config) -> Iterator[str]:
    limited: dict[str, RatesConfig | None] = {}
    if config.limits is not None:
        limited = {"each caller": config.limits.caller, "each user": config.limits.user}
    limited |= {f"provider {name}": provider.limits for name, provider in config.providers.items()}
    limited |= {f"route {name}": route.limits for name, route in config.routes.items()}
    for whose, limits in limited.items():
        if limits is not None:
            amounts = (f"{what} {amount}" for what, amount in limits.model_dump(exclude_none=True).items())
            yield f"Limits of {whose}: {', '.join(amounts)}."


def _budgets(config: Config) -> Iterator[str]:
    owners: list[tuple[str, BudgetConfig | None]] = [
        *((f"Route {name}", route.budget) for name, route in config.routes.items()),
        *((f"Provider {name}", provider.budget) for name, provider in config.providers.items()),
    ]
    if config.auth is not None:
        keys = config.auth.api_keys.keys if config.auth.api_keys else ()
        owners += [(f"Key {key.name}", key.budget) for key in keys]
        everyone = {"Each tenant of a token": config.auth.jwt, "Each certificate": config.auth.mtls}
        owners += [(who, callers.budget) for who, callers in everyone.items() if callers is not None]
    for who, budget in owners:
        if budget is not None:
            yield f"{who} may spend {budget_words(budget)}."


def _callers(config: Config) -> Iterator[str]:
    auth = config.auth
    if auth is None:
        return
    keys = auth.api_keys
    if keys is not None:
        places = (keys.file and f"in {keys.file}", keys.redis and "in Redis", keys.keys and "in this file")
        yield f"Callers show API keys, kept {' and '.join(place for place in places if place) or 'nowhere'}."
    if auth.jwt is not None:
        yield f"Callers show tokens of {auth.jwt.issuer} for {auth.jwt.audience}."
    if auth.mtls is not None:
        yield "Callers show client certificates."
