"""What a provider is told of its place in the configuration and on this machine, and what it prepares there.

Refuses to know what is built of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from router_server.config.tree import Config
from router_server.core.provider import Provider, Surroundings
from router_server.providers import load_kind
from router_server.shadowing import most_copies

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that are another one on each machine."""


def prepare(config: Config, progress: Callable[[str], None]) -> None:
    """Do what the kinds of ``config`` do once for a machine. Blocks; instant where it was done before.

    Raises:
        SetupError: something is missing, or cannot be written.
    """
    for name, provider in config.providers.items():
        kind = load_kind(provider.kind)
        if kind.prepare is not None:
            kind.prepare(surroundings_of(config, name), progress)


def surroundings_of(config: Config, name: str, socket_path: str = "") -> Surroundings:
    """Return what the provider called ``name`` is told; ``socket_path``: of its engine, if it has one."""
    provider = config.providers[name]
    return Surroundings(
        name=name,
        retry_after_cap=provider.retry_after_cap,
        max_connections=provider.max_concurrency + most_copies(config, name),
        models=tuple(target.model for target in config.targets.values() if target.provider == name),
        socket=socket_path,
    )


def process_name() -> str:
    """Return what tells this process from the other replicas, on this machine and elsewhere."""
    return f"{socket.gethostname()}:{os.getpid()}"


def scope_of(provider: Provider) -> str | None:
    """Return which replicas mean the same by this provider: None where it is in this very process."""
    address, port = provider.address
    if not address:
        return None
    return socket.gethostname() if port is None or address in _THIS_MACHINE else ""
