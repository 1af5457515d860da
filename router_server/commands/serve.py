"""``serve``: a configuration, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable

from router_server import app, fleet
from router_server.allocation import keep_large_buffers
from router_server.app import StartError
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, name_mistakes, say, warn
from router_server.config import Config, ConfigError, default_config, listening, load, warnings_of
from router_server.loop import new_loop
from router_server.pricing import warnings_of_prices
from router_server.reloading import Source


def run(arguments: argparse.Namespace) -> Exit:
    """Serve; return how that ended."""
    try:
        config = _configuration(arguments, say)
    except ConfigError as error:
        return name_mistakes(error)
    warn((*warnings_of(config), *warnings_of_prices(config)))
    keep_large_buffers()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(config, _source(arguments)))
    except StartError as error:
        return fail(str(error), Exit.FAILED)
    return Exit.OK


async def _serve(config: Config, source: Source) -> None:
    serve = app.serve if config.server.workers == 1 else fleet.serve
    await serve(config, announce=say, source=source)


def _source(arguments: argparse.Namespace) -> Source:
    return Source(lambda: _configuration(arguments, lambda _words: None), arguments.config)


def _configuration(arguments: argparse.Namespace, explain: Callable[[str], None]) -> Config:
    if arguments.config is None:
        config, explanation = default_config(os.environ)
        explain(explanation)
    else:
        config = load(arguments.config, os.environ)
    return listening(config, listen=arguments.listen, http_listen=arguments.http_listen)
