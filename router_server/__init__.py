"""The router: a gRPC service in front of language models, and the same without a server: `Router`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router_server.library import Router

__all__ = ["Router"]


def __getattr__(name: str) -> Any:
    # Not before it is wanted: what it needs takes a second to load, and the commands do without.
    if name == "Router":
        from router_server.library import Router  # noqa: PLC0415 - see above

        return Router
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
