"""``check-config``: every mistake of a file, or what it serves. Calls no upstream."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from router_server.commands.check_callers import caller_words
from router_server.commands.check_targets import target_words
from router_server.commands.exits import Exit
from router_server.commands.terminal import name_mistakes, say, warn
from router_server.config import Config, ConfigError, load, warnings_of
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
    for line in (*target_words(config), *caller_words(config), *_repeats(config), *_alerts(config)):
        say(line)
    warn((*warnings_of(config), *warnings_of_prices(config)))
    return Exit.OK


def _repeats(config: Config) -> Iterator[str]:
    """Say for how long repeated calls get the same answer, where that is not as usual."""
    ttl = config.server.idempotency_ttl
    if "idempotency_ttl" in config.server.model_fields_set:
        kept = f"Answers are kept for {ttl:g}s under idempotency keys."
        yield kept if ttl else "Idempotency keys mean nothing."


def _alerts(config: Config) -> Iterator[str]:
    if config.alerts is None:
        return
    shares = " and ".join(f"{share:.0%}" for share in config.alerts.budget)
    budgets = f", and when {shares} of a budget is spent" if shares else ""
    yield f"A webhook is told when a target has been down, or back, for {config.alerts.after:g}s{budgets}."
