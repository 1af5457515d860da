"""``serve``: a configuration, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable

from router_server.app import StartError
from router_server.app import serve as serve_until_told
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, name_mistakes, say, warn
from router_server.config import Config, ConfigError, default_config, listening, load, warnings_of

_new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop
except ModuleNotFoundError:  # there is none for this platform
    _new_loop = asyncio.new_event_loop
else:
    _new_loop = uvloop.new_event_loop


def run(arguments: argparse.Namespace) -> Exit:
    """Serve; return how that ended."""
    try:
        config = _configuration(arguments)
    except ConfigError as error:
        return name_mistakes(error)
    warn(warnings_of(config))
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(serve_until_told(config, announce=say))
    except StartError as error:
        return fail(str(error), Exit.FAILED)
    return Exit.OK


def _configuration(arguments: argparse.Namespace) -> Config:
    if arguments.config is None:
        config, explanation = default_config(os.environ)
        say(explanation)
    else:
        config = load(arguments.config, os.environ)
    return listening(config, listen=arguments.listen, http_listen=arguments.http_listen)
