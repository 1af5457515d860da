from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from router_server.core.errors import Outcome
from router_server.core.observer import (
    UNOBSERVED,
    AttemptObservation,
    AttemptRecord,
    AttemptStart,
    CallObservation,
    CallRecord,
    CallStart,
    Failover,
    RpcObservation,
    RpcRecord,
    RpcStart,
)
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.types import EmbedRequest, Operation

START = CallStart("c", Operation.EMBED, "r", EmbedRequest("r", ("x",)))
ATTEMPT = AttemptStart("c", Operation.EMBED, "r", "t", "p", "k", "m", 1)
ATTEMPT_ENDED = AttemptRecord(ATTEMPT, Outcome.OK, 1.0)
ENDED = CallRecord(START, 1.0)
FAILOVER = Failover("r", "t", "u", Outcome.TIMEOUT)
RPC = RpcStart("s/M", "r", "peer")
RPC_ENDED = RpcRecord(RPC, "OK", 1.0)


class Listener:
    """Notes what it is told, and fails where it is told to."""

    def __init__(self, name: str, seen: list[str], *, fails_at: str = "") -> None:
        self.name = name
        self.seen = seen
        self.fails_at = fails_at

    def told(self, event: str) -> None:
        self.seen.append(f"{self.name}.{event}")
        if self.fails_at in {event, "all"}:
            raise RuntimeError(f"{self.name} is broken")

    def call(self, start: CallStart) -> CallObservation:
        assert start is START
        self.told("call")
        return ListeningCall(self)

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        self.told(f"breaker {target} {provider} {before} {after}")

    def rpc(self, start: RpcStart) -> RpcObservation:
        assert start is RPC
        self.told("rpc")
        return ListeningRpc(self)


class ListeningCall:
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        assert start is ATTEMPT
        self.listener.told("attempt")
        return ListeningAttempt(self.listener)

    def failed_over(self, failover: Failover) -> None:
        assert failover is FAILOVER
        self.listener.told("failover")

    def ended(self, record: CallRecord) -> None:
        assert record is ENDED
        self.listener.told("call ended")


class ListeningAttempt:
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    @property
    def headers(self) -> Mapping[str, str]:
        self.listener.told("headers")
        return {self.listener.name: "1", "shared": self.listener.name}

    def ended(self, record: AttemptRecord) -> None:
        assert record is ATTEMPT_ENDED
        self.listener.told("attempt ended")


class ListeningRpc:
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    @property
    def trace_id(self) -> str:
        self.listener.told("trace id")
        return "" if self.listener.name == "a" else f"trace of {self.listener.name}"

    def ended(self, record: RpcRecord) -> None:
        assert record is RPC_ENDED
        self.listener.told("rpc ended")


def play(*listeners: Listener) -> tuple[Mapping[str, str], str]:
    rpc = fan_out_rpc(listeners).rpc(RPC)
    observer = fan_out(listeners)
    call = observer.call(START)
    attempt = call.attempt(ATTEMPT)
    headers = attempt.headers
    attempt.ended(ATTEMPT_ENDED)
    call.failed_over(FAILOVER)
    call.ended(ENDED)
    trace_id = rpc.trace_id
    rpc.ended(RPC_ENDED)
    observer.breaker_changed("t", "p", "closed", "open")
    return headers, trace_id


EVENTS = [
    "rpc",
    "call",
    "attempt",
    "headers",
    "attempt ended",
    "failover",
    "call ended",
    "trace id",
    "rpc ended",
    "breaker t p closed open",
]


def test_all_are_told_and_what_they_give_is_merged() -> None:
    seen: list[str] = []
    headers, trace_id = play(Listener("a", seen), Listener("b", seen))

    assert [event for event in seen if event.startswith("a.")] == [f"a.{event}" for event in EVENTS]
    assert [event for event in seen if event.startswith("b.")] == [f"b.{event}" for event in EVENTS]
    assert headers == {"a": "1", "b": "1", "shared": "b"}
    assert trace_id == "trace of b"


def test_ends_are_told_inside_out() -> None:
    seen: list[str] = []
    play(Listener("a", seen), Listener("b", seen))

    assert seen.index("a.rpc") < seen.index("b.rpc")
    for event in ("attempt ended", "call ended", "rpc ended"):
        assert seen.index(f"b.{event}") < seen.index(f"a.{event}")


@pytest.mark.parametrize("event", EVENTS)
def test_one_that_fails_disturbs_no_other(event: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    headers, trace_id = play(Listener("a", seen, fails_at=event), Listener("b", seen))

    assert [told for told in seen if told.startswith("b.")] == [f"b.{each}" for each in EVENTS]
    assert headers["b"] == "1"
    assert trace_id == "trace of b"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert str(record.exc_info[1]) == "a is broken"


def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    observer = fan_out([Listener("a", [], fails_at="call")])
    for _ in range(100):
        observer.call(START)

    assert len(caplog.records) == 1


def test_none_at_all() -> None:
    assert play() == ({}, "")


class Uninterested(Listener):
    """Wants to hear of calls, and no more of this one, or of its attempts."""

    def __init__(self, seen: list[str], *, of: str) -> None:
        super().__init__("u", seen)
        self.of = of

    def call(self, start: CallStart) -> CallObservation:
        call = super().call(start)
        return UNOBSERVED if self.of == "calls" else UninterestedCall(call)


class UninterestedCall(ListeningCall):
    def __init__(self, call: CallObservation) -> None:
        assert isinstance(call, ListeningCall)
        super().__init__(call.listener)

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        super().attempt(start)
        return UNOBSERVED


@pytest.mark.parametrize(
    ("of", "told"), [("calls", ["call"]), ("attempts", ["call", "attempt", "failover", "call ended"])]
)
def test_who_is_not_interested_is_told_no_more(of: str, told: list[str]) -> None:
    seen: list[str] = []
    headers, _trace_id = play(Uninterested(seen, of=of), Listener("b", seen))

    ours = [event for event in seen if event.startswith("u.")]
    assert ours == [
        "u.rpc",
        *(f"u.{event}" for event in told),
        "u.trace id",
        "u.rpc ended",
        f"u.{EVENTS[-1]}",
    ]
    assert [event for event in seen if event.startswith("b.call")] == ["b.call", "b.call ended"]
    assert headers == {"b": "1", "shared": "b"}
