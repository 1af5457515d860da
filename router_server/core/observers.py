"""One observer made of several, none of which can break a call.

What an observer raises is logged, once per observer and event, and the call goes on as if that observer
had not been there. Refuses to know what any of them does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from router_server.core.observer import (
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

_P = ParamSpec("_P")
_T = TypeVar("_T")

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
    """Calls observers, and keeps what they raise to itself."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def call(self, tell: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        """Return what ``tell`` returns, or None where it raised."""
        try:
            return tell(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the call
            self._report(getattr(tell, "__qualname__", repr(type(tell))))
            return None

    def _report(self, name: str) -> None:
        if name in self._reported:
            return
        self._reported.add(name)
        _log.exception(
            "The observer %s failed; calls go on without it, and further failures of it are not logged.", name
        )


class _Observers:
    def __init__(self, observers: tuple[Observer, ...], isolation: _Isolation) -> None:
        self._observers = observers
        self._isolation = isolation

    def call(self, start: CallStart) -> CallObservation:
        told = (self._isolation.call(observer.call, start) for observer in self._observers)
        return _Calls(tuple(one for one in told if one is not None), self._isolation)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        for observer in self._observers:
            self._isolation.call(observer.breaker_changed, target, provider, before, after)


class _Calls:
    __slots__ = ("_isolation", "_observations")

    def __init__(self, observations: tuple[CallObservation, ...], isolation: _Isolation) -> None:
        self._observations = observations
        self._isolation = isolation

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        told = (self._isolation.call(one.attempt, start) for one in self._observations)
        return _Attempts(tuple(one for one in told if one is not None), self._isolation)

    def failed_over(self, failover: Failover) -> None:
        for one in self._observations:
            self._isolation.call(one.failed_over, failover)

    def ended(self, record: CallRecord) -> None:
        for one in reversed(self._observations):
            self._isolation.call(one.ended, record)


class _Attempts:
    __slots__ = ("_isolation", "_observations")

    def __init__(self, observations: tuple[AttemptObservation, ...], isolation: _Isolation) -> None:
        self._observations = observations
        self._isolation = isolation

    @property
    def headers(self) -> Mapping[str, str]:
        merged: dict[str, str] = {}
        for one in self._observations:
            merged.update(self._isolation.call(_headers, one) or {})
        return merged

    def ended(self, record: AttemptRecord) -> None:
        for one in reversed(self._observations):
            self._isolation.call(one.ended, record)


class _RpcObservers:
    def __init__(self, observers: tuple[RpcObserver, ...], isolation: _Isolation) -> None:
        self._observers = observers
        self._isolation = isolation

    def rpc(self, start: RpcStart) -> RpcObservation:
        told = (self._isolation.call(observer.rpc, start) for observer in self._observers)
        return _Rpcs(tuple(one for one in told if one is not None), self._isolation)


class _Rpcs:
    __slots__ = ("_isolation", "_observations")

    def __init__(self, observations: tuple[RpcObservation, ...], isolation: _Isolation) -> None:
        self._observations = observations
        self._isolation = isolation

    @property
    def trace_id(self) -> str:
        ids = (self._isolation.call(_trace_id, one) for one in self._observations)
        return next((found for found in ids if found), "")

    def ended(self, record: RpcRecord) -> None:
        for one in reversed(self._observations):
            self._isolation.call(one.ended, record)


def _headers(observation: AttemptObservation) -> Mapping[str, str]:
    return observation.headers


def _trace_id(observation: RpcObservation) -> str:
    return observation.trace_id
