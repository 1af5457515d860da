"""Services that a server finds by name when they are called, and does not register.

For each method that is registered grpc.aio keeps a task that waits for its next call, and at each call, of
whatever method, it waits for all of these anew: 10,000 instructions for each. Refuses to know any service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc import aio


class Unregistered:
    """Takes the place of ``server`` where generated code adds a service to it."""

    def __init__(self, server: aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Add what finds a service's methods by their names."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(
        self, service: str, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Add nothing: these are the same methods."""
