"""``status``: how a running server is."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from typing import Any, Final

from modelrouter.cli import API_KEY_VARIABLE
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, say
from router_server.core.status import CheckReport
from router_server.rpc.probe import ProbeError, ProviderState, RouterState, probe

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
        "providers": [_provider_as_json(one) for one in state.providers],
        "engines": [{"name": name, "state": word} for name, word in state.engines.items()],
    }


def _provider_as_json(provider: ProviderState) -> dict[str, Any]:
    return {
        "name": provider.name,
        "state": provider.state,
        "last_check": None if provider.last is None else asdict(provider.last),
        "last_failed_check": None if provider.failed is None else asdict(provider.failed),
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
    rows += [(f"provider {p.name}", p.state, _checks_of(p, time.time())) for p in state.providers]
    rows += [(f"engine {name}", word, "") for name, word in state.engines.items()]
    width = max((len(row[0]) for row in rows), default=0)
    for name, word, more in rows:
        say(f"  {name:<{width}}  {word:<11}  {more}".rstrip(), _COLOURS.get(word, "yellow"))


def _checks_of(provider: ProviderState, now: float) -> str:
    if provider.last is None:
        return "not checked yet"
    told = f"checked {_ago(provider.last, now)} in {provider.last.took * 1_000:.1f} ms by {provider.last.by}"
    if provider.last.error:
        return f"{told}: {provider.last.error}"
    if provider.failed is None:
        return told
    return f"{told}; last failed {_ago(provider.failed, now)}: {provider.failed.error}"


def _ago(report: CheckReport, now: float) -> str:
    return f"{max(0.0, now - report.at):.0f} s ago"
