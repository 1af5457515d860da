"""The router: a gRPC service in front of language models, and the same without a server: `Router`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router_server.config import ConfigError
    from router_server.core.errors import Reason, RouterError
    from router_server.library import NotRunningError, Router
    from router_server.providers import SetupError

__all__ = ["ConfigError", "NotRunningError", "Reason", "Router", "RouterError", "SetupError"]

_HOMES = {
    "ConfigError": "config",
    "NotRunningError": "library",
    "Reason": "core.errors",
    "Router": "library",
    "RouterError": "core.errors",
    "SetupError": "providers",
}


def __getattr__(name: str) -> Any:
    # Not before it is wanted: what it needs takes a second to load, and the commands do without.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
