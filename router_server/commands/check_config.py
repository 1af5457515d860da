"""``check-config``: every mistake of a file, or what it serves. Calls no upstream."""

from __future__ import annotations

import argparse
import os

from router_server.commands.exits import Exit
from router_server.commands.terminal import name_mistakes, say, warn
from router_server.config import ConfigError, load, warnings_of
from router_server.config.route_words import route_words


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
    warn(warnings_of(config))
    return Exit.OK
