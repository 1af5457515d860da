"""What a server says once it serves: what, where, and what to try next."""

from __future__ import annotations

import sys
from pathlib import Path

from router_server.config.route_words import route_words
from router_server.config.tree import Config
from router_server.core.provider import Capability

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where the client looks unless it is told otherwise."""


def served(config: Config, port: int, http_port: int) -> str:
    """Return in plain words what is served, where, and what to try next."""
    host, _, asked = config.server.listen.rpartition(":")
    address = config.server.listen if not asked.isdigit() else f"{host}:{port}"
    lines = [f"Serving on {address}:"]
    for name, route in config.routes.items():
        lines.append(f"  {name}: {route_words(route, lambda target: _words(config, target))}")
    if http_port:
        http_host = (config.server.http_listen or "").rpartition(":")[0]
        lines.append(f"Metrics on http://{http_host}:{http_port}/metrics")
    lines.append(f"Try: {_next_command(config, address)}")
    return "\n".join(lines)


def _words(config: Config, target: str) -> str:
    settings = config.targets[target]
    return f"{settings.model or 'the served model'} ({settings.provider})"


def _next_command(config: Config, address: str) -> str:
    command = Path(sys.argv[0]).with_name("modelrouter")
    try:
        shown = command.resolve().relative_to(Path.cwd())
    except ValueError:
        shown = Path(command.name)
    name = next(iter(config.routes))
    chats = Capability.CHAT in config.capabilities(config.routes[name].order[0])
    where = "" if address == DEFAULT_ADDRESS else f" --target {address}"
    model = "" if name == "chat" else f" --model {name}"
    question = 'chat "What is the capital of France?"' if chats else 'embed "a cat" "a kitten"'
    return f"{shown} {question}{model}{where}"
