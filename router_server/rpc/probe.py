"""How a running router is, as its own health service and its list of routes tell it.

The asking side: everything that `health` and `service` answer. Refuses to know who wants to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelrouter.connection import API_KEY_HEADER, is_local
from modelrouter.v1 import models_pb2, service_pb2_grpc
from router_server.core.status import CheckReport
from router_server.rpc.reports import Trailers, reported

UNKNOWN = "unknown"
_PROVIDER = "provider/"


class ProbeError(Exception):
    """The router cannot be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route, what it is for, and the targets behind it; empty where the server hides them."""

    name: str
    state: str
    operations: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A provider that is checked; of several endpoints, each is one.

    Attributes:
        name: of the provider, and of the endpoint where there are several.
        state: what the last check said, as `RouterState` has it.
        last: the last check, by whichever replica; None where there was none.
        failed: the last one that failed.
    """

    name: str
    state: str
    last: CheckReport | None
    failed: CheckReport | None


@dataclass(frozen=True, slots=True)
class RouterState:
    """A running router. States are ``serving``, ``not_serving`` or ``unknown``; ``targets`` are by name.

    ``engines`` are the servers that it runs itself, each with its state: ``ready``, ``asleep`` and the like.
    ``config`` is ``not_serving`` where the configuration that was read last is refused.
    """

    live: bool
    ready: bool
    routes: tuple[RouteState, ...]
    targets: dict[str, str]
    engines: dict[str, str]
    config: str = UNKNOWN
    providers: tuple[ProviderState, ...] = ()


def probe(
    address: str, *, timeout: float = 5.0, ca: Path | None = None, api_key: str | None = None
) -> RouterState:
    """Ask the router at ``address``; on a plaintext health port it tells no routes.

    Args:
        address: ``host:port`` or ``unix:/path``.
        timeout: seconds for all questions together.
        ca: who signed the server's certificate, PEM; None asks in plaintext.
        api_key: shown to a router that asks who calls, unless it would travel unencrypted to another machine.

    Raises:
        ProbeError: nobody answers there, or no router does, or the file cannot be read.
    """
    try:
        with _channel(address, ca) as channel:
            return _Questions(channel, timeout, _shown(api_key, address, ca)).state()
    except grpc.RpcError as error:
        raise ProbeError(_why(error, address, timeout)) from None
    except grpc.FutureTimeoutError:
        raise ProbeError(
            f"no router answers at {address}; start one with `router-server serve`, "
            "or say where it is with --target"
        ) from None


def _channel(address: str, ca: Path | None) -> grpc.Channel:
    if ca is None:
        return grpc.insecure_channel(address)
    try:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))
    except OSError as error:
        raise ProbeError(f"cannot read {ca}: {error.strerror}; correct --ca") from None


def _shown(api_key: str | None, address: str, ca: Path | None) -> tuple[tuple[str, str], ...]:
    if api_key is None or (ca is None and not is_local(address)):
        return ()
    return ((API_KEY_HEADER, api_key),)


class _Questions:
    def __init__(
        self, channel: grpc.Channel, timeout: float, credentials: tuple[tuple[str, str], ...]
    ) -> None:
        # Waited for apart from the questions: a refused connection and a silent router differ.
        grpc.channel_ready_future(channel).result(timeout)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._models = service_pb2_grpc.ModelRouterServiceStub(channel)
        self._timeout = timeout
        self._credentials = credentials

    def state(self) -> RouterState:
        live = self._health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=self._timeout)
        routes = [self._route(model) for model in self._list_models()]
        names = dict.fromkeys(target for route in routes for target in route.targets)
        listed = self._listed()
        return RouterState(
            live=_word(live) == "serving",
            ready=self._of("readiness") == "serving",
            routes=tuple(routes),
            targets={name: self._of(f"target/{name}") for name in names},
            engines=_engines(listed),
            config=self._of("config"),
            providers=tuple(self._provider(name) for name in listed if name.startswith(_PROVIDER)),
        )

    def _listed(self) -> list[str]:
        try:
            listed = self._health.List(health_pb2.HealthListRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                return []
            raise
        return sorted(listed.statuses)

    def _provider(self, name: str) -> ProviderState:
        state, trailers = self._told(name)
        return ProviderState(name.removeprefix(_PROVIDER), state, *reported(trailers))

    def _list_models(self) -> list[models_pb2.Model]:
        try:
            request = models_pb2.ListModelsRequest()
            answer = self._models.ListModels(request, timeout=self._timeout, metadata=self._credentials)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return []
            raise
        return list(answer.models)

    def _route(self, model: models_pb2.Model) -> RouteState:
        names = [models_pb2.Model.Operation.Name(operation) for operation in model.operations]
        operations = tuple(name.removeprefix("OPERATION_").lower() for name in names)
        return RouteState(model.name, self._of(f"route/{model.name}"), operations, tuple(model.targets))

    def _of(self, name: str) -> str:
        return self._told(name)[0]

    def _told(self, name: str) -> tuple[str, Trailers]:
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            answer, call = self._health.Check.with_call(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return UNKNOWN, ()
            raise
        return _word(answer), call.trailing_metadata()


def _engines(listed: Sequence[str]) -> dict[str, str]:
    parts = (name.split("/") for name in listed)
    return {part[1]: part[2] for part in parts if part[0] == "engine"}


def _word(answer: health_pb2.HealthCheckResponse) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)).lower()


def _why(error: grpc.RpcError, address: str, timeout: float) -> str:
    code = error.code()
    if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
        return f"what answers at {address} is no model router; say where it is with --target"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the router at {address} did not answer within {timeout:g} s; try again, or restart it"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"the connection to {address} broke; with TLS there, name its authority with --ca"
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return (
            f"the router at {address} asks who calls; set MODELROUTER_API_KEY to a key that it knows, and "
            "name its authority with --ca where it is on another machine, or ask its health port"
        )
    return f"the router at {address} refused the question with {code.name}"
