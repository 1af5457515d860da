"""Reflection, so that a client without stubs can ask what the contract is.

The published servicer speaks v1alpha; v1 has the same messages under another name, and newer tools ask
for it first, or only.
"""

from __future__ import annotations

from typing import Final

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from modelrouter.v1 import service_pb2

_V1: Final = "grpc.reflection.v1.ServerReflection"
_METHOD: Final = "ServerReflectionInfo"


def add_reflection(server: aio.Server) -> None:
    """Let ``server`` tell its contract."""
    names = (
        service_pb2.DESCRIPTOR.services_by_name["ModelRouterService"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    servicer = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]  # in __all__, not in the stubs
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(name, {_METHOD: method})
            for name in (_V1, reflection.SERVICE_NAME)
        ]
    )
