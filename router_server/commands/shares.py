"""``shares``: how users are allotted to the targets of a route, shown or changed while replicas serve."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from typing import Final

from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, name_mistakes, say
from router_server.config import Config, ConfigError, load
from router_server.core.allocation import parse_shares
from router_server.core.shared import UnreachableError
from router_server.routing import shares_key
from router_server.state.opening import State, open_state

_LIFE: Final = 365 * 86_400.0
"""Seconds for which changed shares hold: everything that is shared ends some day."""


class _RefusedError(Exception):
    """What was asked makes no sense; the message says why and what to do."""


def run(arguments: argparse.Namespace) -> Exit:
    """Show or change the shares of a route; return what came of it."""
    try:
        config = load(arguments.config, os.environ)
    except ConfigError as error:
        return name_mistakes(error)
    try:
        configured = _configured(config, arguments.route)
        wanted = _wanted(arguments.shares, configured)
        shares = asyncio.run(_apply(config, arguments.route, wanted, reset=arguments.reset))
    except _RefusedError as error:
        return fail(str(error), Exit.USAGE)
    except UnreachableError:
        return fail("the shared state does not answer; is the Redis of the configuration up?", Exit.FAILED)
    total = sum((shares or configured).values())
    say(f"{arguments.route}, as {'changed' if shares else 'configured'}:")
    for name, share in (shares or configured).items():
        say(f"  {name}  {share / total:.1%}")
    return Exit.OK


def _configured(config: Config, name: str) -> Mapping[str, float]:
    route = config.routes.get(name)
    if route is None:
        raise _RefusedError(f"no route is called {name}; there are {', '.join(config.routes)}")
    if route.sticky is None:
        raise _RefusedError(f"route {name} is not sticky; set routes.{name}.sticky first")
    if config.redis is None:
        raise _RefusedError("the configuration has no redis, and nothing else tells a running server")
    if not route.allots_by_share:
        raise _RefusedError(
            f"route {name} has no shares, {route.strategy} decides; set routes.{name}.sticky.shares"
        )
    return route.sticky.shares or {one.target: float(one.weight) for one in route.targets}


def _wanted(pairs: list[str], configured: Mapping[str, float]) -> Mapping[str, float]:
    wanted: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        if name not in configured:
            raise _RefusedError(f"{pair}: write TARGET=SHARE with one of {', '.join(configured)}")
        try:
            wanted[name] = float(text)
        except ValueError:
            raise _RefusedError(f"{pair}: the share is not a number") from None
        if not 0 <= wanted[name] < float("inf"):
            raise _RefusedError(f"{pair}: the share must be 0 or more")
    if wanted and not any(wanted.values()):
        raise _RefusedError("every share is 0; somebody has to take the calls")
    return {name: share for name, share in wanted.items() if share > 0}


async def _apply(
    config: Config, route: str, wanted: Mapping[str, float], *, reset: bool
) -> Mapping[str, float]:
    state = open_state(config.redis.get_secret_value() if config.redis else None)
    try:
        await state.connect()
        return await _changed(state, shares_key(route), wanted, reset=reset)
    finally:
        await state.close()


async def _changed(
    state: State, key: str, wanted: Mapping[str, float], *, reset: bool
) -> Mapping[str, float]:
    if reset:
        await state.shared.drop(key)
    elif wanted:
        await state.shared.put(key, json.dumps(wanted).encode(), _LIFE)
    kept = await state.shared.get(key)
    return parse_shares(kept) if kept else {}
