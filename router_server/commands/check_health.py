"""``check-health``: asks every provider of a configuration once whether it is well, and prints a table.

Spends no tokens. Asks as the server does, from this machine, with the credentials of the configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router_server.assembly import assemble
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, name_mistakes, say
from router_server.config import Config, ConfigError, default_config, load
from router_server.core.observers import fan_out
from router_server.core.target import HealthCheck, Upstream
from router_server.providers import SetupError

_COLOURS: Final = {"well": "green", "unwell": "red"}
_NOWHERE: Final = Path("/")
_OF_THE_SERVER: Final = "run_by_the_server"
"""Why an engine's health is unknown: it is a child of a server, reached by nobody else."""
_WORDS: Final = {True: "well", False: "unwell", None: "unknown"}


@dataclass(frozen=True, slots=True)
class _Row:
    provider: str
    state: str
    milliseconds: float
    address: str
    required: bool
    error: str


def run(arguments: argparse.Namespace) -> Exit:
    """Check and print; return whether all that is required is well."""
    try:
        config = load(arguments.config, os.environ) if arguments.config else default_config(os.environ)[0]
        rows = asyncio.run(_checked(config))
    except ConfigError as error:
        return name_mistakes(error)
    except SetupError as error:
        return fail(str(error), Exit.FAILED)
    if arguments.json:
        say(json.dumps({"providers": [_as_json(row) for row in rows]}))
    else:
        _show(rows)
    down = any(row.required and row.state == "unwell" for row in rows)
    return Exit.NOT_READY if down else Exit.OK


async def _checked(config: Config) -> Sequence[_Row]:
    clock = asyncio.get_running_loop().time
    assembly = assemble(config, fan_out(()), clock, changed=lambda: None, engines=_NOWHERE)
    assembly.begin()
    try:
        upstreams = assembly.upstreams.values()
        await asyncio.gather(*(assembly.checks.check(one, one.check or HealthCheck()) for one in upstreams))
        return [_row(one) for one in upstreams]
    finally:
        await assembly.close()


def _row(upstream: Upstream) -> _Row:
    report = upstream.last_check
    if upstream.engine is not None:
        name, required = upstream.unique_name, upstream.required
        return _Row(name, _WORDS[None], 0.0, "", required=required, error=_OF_THE_SERVER)
    host, port = upstream.provider.address
    return _Row(
        provider=upstream.unique_name,
        state=_WORDS[upstream.healthy],
        milliseconds=round((report.took if report else 0.0) * 1_000, 1),
        address=f"{host}:{port}" if port else host,
        required=upstream.required,
        error=report.error if report else "",
    )


def _as_json(row: _Row) -> dict[str, object]:
    return {
        "provider": row.provider,
        "state": row.state,
        "took_ms": row.milliseconds,
        "address": row.address,
        "required": row.required,
        "error": row.error,
    }


def _show(rows: Sequence[_Row]) -> None:
    wide = max((len(row.provider) for row in rows), default=0)
    far = max((len(row.address) for row in rows), default=0)
    for row in rows:
        required = "required" if row.required else ""
        line = f"{row.provider:<{wide}}  {row.state:<7}  {row.milliseconds:>8.1f} ms  {row.address:<{far}}"
        say(f"{line}  {required:<8}  {row.error}".rstrip(), _COLOURS.get(row.state, "yellow"))
