"""The hook by which telemetry sees calls and attempts.

The core tells an `Observer` what happened, in frozen records, and takes from it only the headers that
carry the trace context on. Refuses to know what becomes of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, Final, Protocol

from router_server.core.errors import Outcome, Phase, Reason
from router_server.core.record import Record, field
from router_server.core.types import (
    ChatRequest,
    EmbedRequest,
    EngineTimes,
    FinishReason,
    Message,
    Operation,
    Usage,
)


class Reused(StrEnum):
    """Whose answer a call was given that asked no target itself."""

    CACHE = "cache"
    """One that is kept of the same question."""
    REPLAY = "replay"
    """One that is kept of a call with the same idempotency key."""
    JOINED = "joined"
    """That of another call, as it arrived."""


class CallStart(Record, frozen=True):
    """A call that is about to be routed; ``arm`` is that of the route's experiment, or ``shadow``.

    ``principal`` is who calls, empty where nobody asks who it is.
    """

    unsaid: ClassVar[frozenset[str]] = frozenset({"request"})

    call_id: str
    operation: Operation
    route: str
    request: ChatRequest | EmbedRequest
    arm: str = ""
    principal: str = ""


class AttemptStart(Record, frozen=True):
    """A target is about to be asked.

    ``number`` counts the call's attempts from 1; ``hedge`` tells that another attempt is still running.
    ``endpoint`` says which of the provider's endpoints it is, and is empty where there is one only.
    """

    unsaid: ClassVar[frozenset[str]] = frozenset({"request"})

    call_id: str
    operation: Operation
    route: str
    target: str
    provider: str
    kind: str
    model: str
    number: int
    server_address: str = ""
    server_port: int | None = None
    request: ChatRequest | EmbedRequest | None = None
    hedge: bool = False
    endpoint: str = ""


class AttemptRecord(Record, frozen=True):
    """One finished attempt; times in seconds.

    ``queue_wait`` is part of ``duration``; ``time_to_first_token`` counts from the moment that the permit
    was held, and is None where no token came or the call was not a stream.
    ``time_per_token`` is the mean over the tokens after the first. ``answer`` is the whole message, for
    those who were told to record contents. ``engine`` is what the engine itself says of its time.
    """

    unsaid: ClassVar[frozenset[str]] = frozenset({"answer"})

    start: AttemptStart
    outcome: Outcome
    duration: float
    queue_wait: float = 0.0
    time_to_first_token: float | None = None
    time_per_token: float | None = None
    error_reason: str = ""
    status: int | None = None
    usage: Usage | None = None
    reported_model: str = ""
    finish_reason: FinishReason | None = None
    answer: Message | None = None
    engine: EngineTimes | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """The answer's tokens by the time from the permit to its end; None where it is not whole."""
        seconds = self.duration - self.queue_wait
        tokens = 0 if self.usage is None else self.usage.output_tokens
        return tokens / seconds if self.outcome is Outcome.OK and tokens and seconds > 0 else None


class CallRecord(Record, frozen=True):
    """One finished call; times in seconds. ``error`` None means success; ``target`` is who answered.

    ``reused`` tells that it was given the answer of another call, whose tokens then are in ``usage``.
    """

    start: CallStart
    duration: float
    target: str = ""
    provider: str = ""
    model: str = ""
    attempts: tuple[AttemptRecord, ...] = ()
    error: Reason | None = None
    cancelled: bool = False
    phase: Phase | None = None
    time_to_first_token: float | None = None
    usage: Usage | None = None
    user_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    reused: Reused | None = None

    @property
    def cost_nano_usd(self) -> int | None:
        """What all attempts cost together, whatever their end; None where no price is known."""
        if self.reused is not None:
            return 0
        total: int | None = None
        for attempt in self.attempts:
            if attempt.usage is not None and (cost := attempt.usage.cost_nano_usd) is not None:
                total = cost if total is None else total + cost
        return total


class Failover(Record, frozen=True):
    """A call went from one target to another; ``reason`` is the outcome that made it."""

    route: str
    from_target: str
    to_target: str
    reason: Outcome


class AttemptObservation(Protocol):
    """One attempt as an observer sees it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that carry this attempt's trace context to the upstream."""

    def ended(self, record: AttemptRecord) -> None:
        """The attempt is over, whatever its outcome."""


class CallObservation(Protocol):
    """One call as an observer sees it."""

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        """A target is about to be asked."""

    def failed_over(self, failover: Failover) -> None:
        """The call goes on with another target."""

    def ended(self, record: CallRecord) -> None:
        """The call is over, whatever its end."""


class _Unobserved:
    """A call or an attempt of which an observer wants to hear no more."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    def attempt(self, start: AttemptStart) -> AttemptObservation:
        del start
        return self

    def failed_over(self, failover: Failover) -> None:
        pass

    def ended(self, record: CallRecord | AttemptRecord) -> None:
        pass


UNOBSERVED: Final = _Unobserved()
"""What an observer returns that has no interest in a call or in its attempts: it is not told of them."""


class Observer(Protocol):
    """Sees every call."""

    def call(self, start: CallStart) -> CallObservation:
        """A call is about to be routed."""

    def breaker_changed(self, target: str, provider: str, before: str, after: str) -> None:
        """A target's breaker went from one state to another: closed, open, half_open."""


class RpcStart(Record, frozen=True):
    """An RPC came in. ``metadata`` holds only the keys that the router reads; never credentials.

    ``method`` is the full name without the leading slash, ``modelrouter.v1.ModelRouterService/Chat``.
    """

    method: str
    request_id: str
    peer: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class RpcRecord(Record, frozen=True):
    """A finished RPC: ``code`` is the name of its gRPC status, ``call`` what was routed, if anything was.

    ``principal`` is who called, empty where that is not known; ``principal_labels`` are what the
    configuration says of that one.
    """

    start: RpcStart
    code: str
    duration: float
    trace_id: str = ""
    reason: str = ""
    call: CallRecord | None = None
    principal: str = ""
    principal_labels: Mapping[str, str] = field(default_factory=dict)


class RpcObservation(Protocol):
    """One RPC as an observer sees it."""

    @property
    def trace_id(self) -> str:
        """32 hex digits, or empty where the observer has none."""

    def ended(self, record: RpcRecord) -> None:
        """The RPC is over, whatever its status. Runs in the context that `RpcObserver.rpc` ran in."""


class RpcObserver(Protocol):
    """Sees every RPC of the router's own service."""

    def rpc(self, start: RpcStart) -> RpcObservation:
        """An RPC came in; what this sets in context variables is seen by the whole RPC."""
