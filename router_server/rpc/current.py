"""The RPC that is being answered: what the layers of the edge learn about it and hand to each other.

Kept in a context variable, so that the core's observer reaches the RPC that caused a call without the core
knowing that there are RPCs.
"""

from __future__ import annotations

from contextvars import ContextVar

from msgspec import Struct

from router_server.core.observer import (
    UNOBSERVED,
    AttemptObservation,
    AttemptStart,
    CallObservation,
    CallRecord,
    CallStart,
    Failover,
    Observer,
)
from router_server.core.principal import Principal
from router_server.core.quotas import Standing
from router_server.core.results import Trail


class Rpc(Struct, eq=False):
    """One RPC of the router's own service.

    Attributes:
        request_id: the caller's own, or one that we made.
        call_id: ours, unique; the id in the answer.
        trace_id: 32 hex digits, or empty where nothing traces.
        trail: who answers, as far as that is known.
        call: the finished call, once there is one.
        principal: who calls, where that is asked and known.
        standing: the caller's limit of which the least is left, where it has any.
    """

    request_id: str
    call_id: str
    trace_id: str = ""
    trail: Trail | None = None
    call: CallRecord | None = None
    principal: Principal | None = None
    standing: Standing | None = None

    def stands(self, standing: Standing) -> None:
        """Note how far the caller's limits are used."""
        self.standing = standing


_current: ContextVar[Rpc | None] = ContextVar("rpc", default=None)


def enter_rpc(rpc: Rpc) -> None:
    """Make ``rpc`` the current one of this task and of the tasks that it starts."""
    _current.set(rpc)


def current_rpc() -> Rpc:
    """Return the RPC that this task answers.

    Raises:
        LookupError: it answers none: the guard is missing among the server's interceptors.
    """
    rpc = _current.get()
    if rpc is None:
        raise LookupError("no RPC is being answered here; is the server built without its guard?")
    return rpc


class CallHolder(Observer):
    """An observer of the core that leaves each call's record with the RPC that asked for it."""

    def call(self, start: CallStart) -> CallObservation:
        """Note which RPC the call belongs to."""
        del start
        rpc = _current.get()
        return UNOBSERVED if rpc is None else _HeldCall(rpc)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """Nothing to note: a breaker belongs to no RPC."""


class _HeldCall(CallObservation):
    __slots__ = ("_rpc",)

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        del start
        return UNOBSERVED

    def failed_over(self, failover: Failover) -> None:
        pass

    def ended(self, record: CallRecord) -> None:
        self._rpc.call = record
