"""One observer made of several, none of which can break a call.

What an observer raises is logged, once per observer and event, and the call goes on as if that observer
had not been there. Refuses to know what any of them does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from msgspec import Struct

from router_server.core.observer import (
    UNOBSERVED,
    AttemptObservation,
    AttemptRecord,
    AttemptStart,
    CallObservation,
    CallRecord,
    CallStart,
    Failover,
    Observer,
    RpcObservation,
    RpcObserver,
    RpcRecord,
    RpcStart,
)

_log = logging.getLogger(__name__)


def fan_out(observers: Iterable[Observer]) -> Observer:
    """Return an observer that tells all of ``observers``, in order; ends are told in reverse order.

    An attempt's headers are those of all of them; of two that give the same header the later one wins.
    """
    return _Observers(tuple(observers), _Isolation())


def fan_out_rpc(observers: Iterable[RpcObserver]) -> RpcObserver:
    """Return an RPC observer that tells all of ``observers``; its trace id is the first that there is."""
    return _RpcObservers(tuple(observers), _Isolation())


class _Isolation:
    """Keeps what observers raise to itself."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def failed(self, observer: object, event: str) -> None:
        """Log the exception that is being handled, the first time that ``observer`` fails at ``event``."""
        name = f"{type(observer).__qualname__}.{event}"
        if name in self._reported:
            return
        self._reported.add(name)
        _log.exception(
            "The observer %s failed; calls go on without it, and further failures of it are not logged.", name
        )


# A call makes a dozen of these loops, so each has its own try: it costs nothing where nothing is raised, and
# a function between that calls what it is given takes 0.3 µs.


class _Observers:
    def __init__(self, observers: tuple[Observer, ...], isolation: _Isolation) -> None:
        self._observers = observers
        self._isolation = isolation

    def call(self, start: CallStart) -> CallObservation:
        told: list[CallObservation] = []
        for observer in self._observers:
            try:
                if (one := observer.call(start)) is not UNOBSERVED:
                    told.append(one)
            except Exception:  # noqa: BLE001 - whatever it is, it must not reach the call
                self._isolation.failed(observer, "call")
        return _Calls(told, self._isolation) if told else UNOBSERVED

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        for observer in self._observers:
            try:
                observer.breaker_changed(target, provider, before, after)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(observer, "breaker_changed")


class _Calls(Struct, eq=False, gc=False):
    _observations: list[CallObservation]
    _isolation: _Isolation

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        told: list[AttemptObservation] = []
        for observation in self._observations:
            try:
                if (one := observation.attempt(start)) is not UNOBSERVED:
                    told.append(one)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(observation, "attempt")
        return _Attempts(told, self._isolation) if told else UNOBSERVED

    def failed_over(self, failover: Failover) -> None:
        for one in self._observations:
            try:
                one.failed_over(failover)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "failed_over")

    def ended(self, record: CallRecord) -> None:
        for one in reversed(self._observations):
            try:
                one.ended(record)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "ended")


class _Attempts(Struct, eq=False, gc=False):
    _observations: list[AttemptObservation]
    _isolation: _Isolation

    @property
    def headers(self) -> Mapping[str, str]:
        merged: dict[str, str] = {}
        for one in self._observations:
            try:
                if given := one.headers:
                    merged.update(given)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "headers")
        return merged

    def ended(self, record: AttemptRecord) -> None:
        for one in reversed(self._observations):
            try:
                one.ended(record)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "ended")


class _RpcObservers:
    def __init__(self, observers: tuple[RpcObserver, ...], isolation: _Isolation) -> None:
        self._observers = observers
        self._isolation = isolation

    def rpc(self, start: RpcStart) -> RpcObservation:
        told: list[RpcObservation] = []
        for observer in self._observers:
            try:
                told.append(observer.rpc(start))
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(observer, "rpc")
        return _Rpcs(told, self._isolation)


class _Rpcs(Struct, eq=False, gc=False):
    _observations: list[RpcObservation]
    _isolation: _Isolation

    @property
    def trace_id(self) -> str:
        for one in self._observations:
            try:
                if found := one.trace_id:
                    return found
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "trace_id")
        return ""

    def ended(self, record: RpcRecord) -> None:
        for one in reversed(self._observations):
            try:
                one.ended(record)
            except Exception:  # noqa: BLE001 - as above
                self._isolation.failed(one, "ended")
