"""The guard: the outermost layer of every RPC of the router's own service.

It names the RPC, shows it to the observer, parses the request, sends the answer, and turns every failure
into a status. grpc.aio would send an unhandled exception's text to the caller, and the bytes of a message
that it cannot parse end in one too; so both happen inside the guard. Health and reflection pass by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.observer import RpcObserver, RpcRecord, RpcStart
from router_server.core.principal import Authenticator
from router_server.rpc.credentials import credentials_of
from router_server.rpc.current import Rpc, enter_rpc
from router_server.rpc.delivery import Delivery
from router_server.rpc.inflight import InFlight
from router_server.rpc.metadata import new_rpc, readable
from router_server.rpc.status import ROWS, internal_error

_log = logging.getLogger(__name__)

_DEADLINE_SLACK = 0.02
"""Seconds: the caller's timer, the transport's and the wall clock that we read do not agree to the end."""

Context = aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Ending:
    code: str
    reason: str = ""


_WELL: Final = _Ending(grpc.StatusCode.OK.name)


class GuardedMethods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the published types only
    """The methods of a service, each in its guard: what a server is given in place of the service itself.

    An interceptor would wrap the method anew for each call, which took a tenth of the router's own part.
    """

    def __init__(self, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]], inflight: InFlight) -> None:
        self._methods = methods
        self._inflight = inflight

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method, and count the RPC; None where it is of another service."""
        method = self._methods.get(handler_call_details.method)
        if method is not None:
            self._inflight.count_current_task()
        return method


class Guard:
    """Wraps the methods of the router's own service.

    Args:
        observer: sees every RPC, also those that were cancelled or failed.
        inflight: counts them.
        delivery: sends what they answer.
        clock: monotonic seconds.
        authenticator: knows their callers; None: nobody asks who calls.
    """

    def __init__(
        self,
        observer: RpcObserver,
        inflight: InFlight,
        delivery: Delivery,
        clock: Callable[[], float],
        authenticator: Authenticator | None = None,
    ) -> None:
        self._observer = observer
        self._inflight = inflight
        self._delivery = delivery
        self._clock = clock
        self.authenticator = authenticator

    def around(self, add_to: Callable[[Any], None], written: Collection[str] = frozenset()) -> GuardedMethods:
        """Return the guarded methods of a service that ``add_to`` adds to the server which it is given.

        Those whose names are in ``written`` answer with the bytes of their messages.
        """
        service = _Methods()
        add_to(service)
        methods = {}
        for name, one in service.found.items():
            method = self._stream(one) if one.response_streaming else self._unary(one)
            serialize = None if name.rpartition("/")[2] in written else one.response_serializer
            methods[f"/{name}"] = self._guarded(name, method, serialize)
        return GuardedMethods(methods, self._inflight)

    def _unary(self, method: grpc.RpcMethodHandler[Any, Any]) -> _Method:
        behaviour: Any = method.unary_unary  # the published types know synchronous behaviours only

        async def unary(rpc: Rpc, data: bytes, context: Context) -> Any:
            response = await behaviour(_parse(method, data), context)
            self._delivery.sign(rpc, context)
            return response

        return _Method(unary, grpc.unary_unary_rpc_method_handler)

    def _stream(self, method: grpc.RpcMethodHandler[Any, Any]) -> _Method:
        behaviour: Any = method.unary_stream

        def stream(rpc: Rpc, data: bytes, context: Context) -> Awaitable[None]:
            return self._delivery.send_all(rpc, context, behaviour(_parse(method, data), context))

        return _Method(stream, grpc.unary_stream_rpc_method_handler)

    def _guarded(self, name: str, method: _Method, serialize: Any) -> grpc.RpcMethodHandler[Any, Any]:
        answer = method.answer

        async def guarded(data: bytes, context: Context) -> Any:
            read = readable(context.invocation_metadata())
            rpc = new_rpc(read)
            start = RpcStart(name, rpc.request_id, context.peer(), read)
            try:
                with (
                    _Observed(self._observer, self._clock, start, rpc, context),
                    self._inflight.answering(rpc),
                ):
                    if self.authenticator is not None:
                        rpc.principal = await self.authenticator.authenticate(credentials_of(context))
                    return await answer(rpc, data, context)
            except RouterError as error:
                failure = error
            except Exception:  # noqa: BLE001 - the last stop before the caller, who must not see what it was
                _log.exception("%s failed, request id %s", name, rpc.request_id)
                failure = internal_error()
            try:
                return await self._delivery.refuse(rpc, context, failure)
            finally:
                del (
                    failure
                )  # it knows this frame: each would keep the other until the garbage collector came by

        return method.wrap(guarded, None, serialize)


@dataclass(frozen=True, slots=True)
class _Method:
    answer: Callable[[Rpc, bytes, Context], Awaitable[Any]]
    wrap: Callable[..., grpc.RpcMethodHandler[Any, Any]]


class _Methods:
    """Takes the place of a server where a service is added to it, and finds its methods."""

    def __init__(self) -> None:
        self.found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """The same methods, in a form in which they cannot be listed."""

    def add_registered_method_handlers(
        self, service: str, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.found |= {f"{service}/{name}": method for name, method in methods.items()}


class _Observed:
    """One RPC, shown to the observer from its begin to its end, whatever that is."""

    __slots__ = ("_began", "_clock", "_context", "_observation", "_observer", "_rpc", "_start")

    def __init__(
        self,
        observer: RpcObserver,
        clock: Callable[[], float],
        start: RpcStart,
        rpc: Rpc,
        context: Context,
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._start = start
        self._rpc = rpc
        self._context = context

    def __enter__(self) -> None:
        self._began = self._clock()
        self._observation = self._observer.rpc(self._start)
        self._rpc.trace_id = self._observation.trace_id
        enter_rpc(self._rpc)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        rpc, ending = self._rpc, _WELL if error is None else _ending(error, self._context)
        self._observation.ended(
            RpcRecord(
                self._start,
                ending.code,
                self._clock() - self._began,
                trace_id=rpc.trace_id,
                reason=ending.reason,
                call=rpc.call,
                principal="" if rpc.principal is None else rpc.principal.subject,
                principal_labels={} if rpc.principal is None else rpc.principal.labels,
            )
        )


def _ending(error: BaseException, context: Context) -> _Ending:
    """Return how an RPC ended that raised ``error``."""
    if isinstance(error, RouterError):
        return _Ending(ROWS[error.reason].code.name, error.reason)
    if not isinstance(error, asyncio.CancelledError):
        return _Ending(grpc.StatusCode.INTERNAL.name, Reason.INTERNAL)
    # A call whose deadline passes is cancelled like one that its caller gives up.
    remaining: float | None = context.time_remaining()
    if remaining is not None and remaining <= _DEADLINE_SLACK:
        return _Ending(grpc.StatusCode.DEADLINE_EXCEEDED.name, Reason.DEADLINE_EXCEEDED)
    return _Ending(grpc.StatusCode.CANCELLED.name)


def _parse(method: grpc.RpcMethodHandler[Any, Any], data: bytes) -> Any:
    deserialize: Any = method.request_deserializer
    try:
        return deserialize(data)
    except DecodeError:
        description = "the bytes are not a message of this method; generate your stubs from the contract"
        raise RouterError(
            Reason.INVALID_REQUEST, description, violations=(Violation("", description),)
        ) from None
