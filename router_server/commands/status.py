"""``status``: how a running server is."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Final

from modelrouter.cli import API_KEY_VARIABLE
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, say
from router_server.rpc.probe import ProbeError, RouterState, probe

_COLOURS: Final = {"serving": "green", "ready": "green", "not_serving": "red", "failed": "red"}

_NOT_READY: Final = "not ready: it starts, drains, or a required provider is down"


def run(arguments: argparse.Namespace) -> Exit:
    """Ask and print; return whether the server is ready."""
    try:
        key = os.environ.get(API_KEY_VARIABLE) or None
        state = probe(arguments.target, timeout=arguments.timeout, ca=arguments.ca, api_key=key)
    except ProbeError as error:
        return fail(str(error), Exit.FAILED)
    if arguments.json:
        say(json.dumps(_as_json(arguments.target, state)))
    else:
        _show(arguments.target, state)
    return Exit.OK if state.ready else Exit.NOT_READY


def _as_json(target: str, state: RouterState) -> dict[str, Any]:
    return {
        "target": target,
        "live": state.live,
        "ready": state.ready,
        "config": state.config,
        "routes": [
            {"name": r.name, "state": r.state, "operations": r.operations, "targets": r.targets}
            for r in state.routes
        ],
        "targets": [{"name": name, "state": word} for name, word in state.targets.items()],
        "engines": [{"name": name, "state": word} for name, word in state.engines.items()],
    }


def _show(target: str, state: RouterState) -> None:
    say(f"{target} is {'ready' if state.ready else _NOT_READY}.")
    if state.config == "not_serving":
        say(
            "  The configuration that was read last is refused; the log says why. The one before is in use.",
            "red",
        )
    rows = [(f"route {r.name}", r.state, ", then ".join(r.targets)) for r in state.routes]
    rows += [(f"target {name}", word, "") for name, word in state.targets.items()]
    rows += [(f"engine {name}", word, "") for name, word in state.engines.items()]
    width = max((len(row[0]) for row in rows), default=0)
    for name, word, targets in rows:
        say(f"  {name:<{width}}  {word:<11}  {targets}".rstrip(), _COLOURS.get(word, "yellow"))
