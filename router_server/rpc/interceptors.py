"""The guard: the outermost layer of every RPC of the router's own service.

It names the RPC, shows it to the observer, parses the request, sends the answer, and turns every failure
into a status. grpc.aio would send an unhandled exception's text to the caller, and the bytes of a message
that it cannot parse end in one too; so both happen inside the guard. Health and reflection pass by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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

GUARDED: Final = "/modelrouter."
"""Methods of the packages modelrouter.v1 and its successors."""

_DEADLINE_SLACK = 0.02
"""Seconds: the caller's timer, the transport's and the wall clock that we read do not agree to the end."""

Context = aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Ending:
    code: grpc.StatusCode
    reason: str = ""


_WELL: Final = _Ending(grpc.StatusCode.OK)


class Guard(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the published types only
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

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the method's own handler, or a guarded one."""
        method = await continuation(handler_call_details)
        if method is None or not handler_call_details.method.startswith(GUARDED):
            return method
        self._inflight.count_current_task()
        name = handler_call_details.method.removeprefix("/")
        if method.response_streaming:
            return self._guarded_stream(name, method)
        return self._guarded_unary(name, method)

    def _guarded_unary(
        self, name: str, method: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Any = method.unary_unary  # the published types know synchronous behaviours only

        async def unary(data: bytes, context: Context) -> Any:
            async def answer(rpc: Rpc) -> Any:
                response = await behaviour(_parse(method, data), context)
                self._delivery.sign(rpc, context)
                return response

            return await self._guarded(name, context, answer)

        return grpc.unary_unary_rpc_method_handler(unary, None, method.response_serializer)

    def _guarded_stream(
        self, name: str, method: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Any = method.unary_stream

        async def stream(data: bytes, context: Context) -> None:
            async def answer(rpc: Rpc) -> None:
                await self._delivery.send_all(rpc, context, behaviour(_parse(method, data), context))

            await self._guarded(name, context, answer)

        return grpc.unary_stream_rpc_method_handler(stream, None, method.response_serializer)

    async def _guarded(self, name: str, context: Context, answer: Callable[[Rpc], Awaitable[Any]]) -> Any:
        read = readable(context.invocation_metadata())
        rpc = new_rpc(read)
        try:
            return await self._observed(name, read, rpc, context, answer)
        except RouterError as error:
            failure = error
        except Exception:  # noqa: BLE001 - the last stop before the caller, who must not see what it was
            _log.exception("%s failed, request id %s", name, rpc.request_id)
            failure = internal_error()
        try:
            return await self._delivery.refuse(rpc, context, failure)
        finally:
            del failure  # it knows this frame: each would keep the other until the garbage collector came by

    async def _observed(
        self,
        name: str,
        read: Mapping[str, str],
        rpc: Rpc,
        context: Context,
        answer: Callable[[Rpc], Awaitable[Any]],
    ) -> Any:
        start = RpcStart(name, rpc.request_id, context.peer(), read)
        began = self._clock()
        observation = self._observer.rpc(start)
        rpc.trace_id = observation.trace_id
        enter_rpc(rpc)
        ending = _WELL
        try:
            async with self._inflight.answering(rpc):
                if self.authenticator is not None:
                    rpc.principal = await self.authenticator.authenticate(credentials_of(context))
                return await answer(rpc)
        except BaseException as error:
            ending = _ending(error, context)
            raise
        finally:
            observation.ended(
                RpcRecord(
                    start,
                    ending.code.name,
                    self._clock() - began,
                    trace_id=rpc.trace_id,
                    reason=ending.reason,
                    call=rpc.call,
                    principal="" if rpc.principal is None else rpc.principal.subject,
                )
            )


def _ending(error: BaseException, context: Context) -> _Ending:
    """Return how an RPC ended that raised ``error``."""
    if isinstance(error, RouterError):
        return _Ending(ROWS[error.reason].code, error.reason)
    if not isinstance(error, asyncio.CancelledError):
        return _Ending(grpc.StatusCode.INTERNAL, Reason.INTERNAL)
    # A call whose deadline passes is cancelled like one that its caller gives up.
    remaining: float | None = context.time_remaining()
    if remaining is not None and remaining <= _DEADLINE_SLACK:
        return _Ending(grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED)
    return _Ending(grpc.StatusCode.CANCELLED)


def _parse(method: grpc.RpcMethodHandler[Any, Any], data: bytes) -> Any:
    deserialize: Any = method.request_deserializer
    try:
        return deserialize(data)
    except DecodeError:
        description = "the bytes are not a message of this method; generate your stubs from the contract"
        raise RouterError(
            Reason.INVALID_REQUEST, description, violations=(Violation("", description),)
        ) from None
