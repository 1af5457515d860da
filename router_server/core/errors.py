"""Every way a call can fail, and what each failure means: the two tables of the router.

The first table is about an upstream's failure (`Outcome`, `RULES`), the second about what the caller is
told (`Reason`, `RouterError`). Refuses to know any status code of HTTP or gRPC, and never carries an
upstream's own text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from router_server.core.record import Record
from router_server.core.types import Usage


class Outcome(StrEnum):
    """How an attempt ended; every value but OK, CIRCUIT_OPEN and BUDGET is an error class."""

    OK = "ok"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    AUTH = "auth"
    MODEL_MISSING = "model_missing"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    SATURATED = "saturated"
    CIRCUIT_OPEN = "circuit_open"
    BUDGET = "budget"
    CANCELLED = "cancelled"


class SameTarget(Enum):
    """Whether the same target is tried again."""

    NO = auto()
    AFTER_BACKOFF = auto()
    """Up to ``retries`` times, with full-jitter backoff."""
    AFTER_COOLING = auto()
    """Only if no other target is eligible and the wait fits the deadline."""


class NextTarget(Enum):
    """Whether the call may go on with the next target."""

    NO = auto()
    YES = auto()
    IF_LARGER = auto()
    """If its context window is larger, or unknown."""


class BreakerEffect(Enum):
    """What an outcome tells the breaker."""

    NONE = auto()
    SUCCESS = auto()
    FAILURE = auto()
    TRIP_OR_CHECK = auto()
    """A 401 opens it at once; a 403 only if the active check fails too."""
    CHECK = auto()
    """A failure only if the active check fails too."""


class Cooling(Enum):
    """How long a target is left alone."""

    NONE = auto()
    UNTIL_PROBE = auto()
    RETRY_AFTER = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table of upstream failures."""

    same_target: SameTarget = SameTarget.NO
    next_target: NextTarget = NextTarget.YES
    breaker: BreakerEffect = BreakerEffect.NONE
    cooling: Cooling = Cooling.NONE


RULES: Final[Mapping[Outcome, Rule]] = {
    Outcome.OK: Rule(next_target=NextTarget.NO, breaker=BreakerEffect.SUCCESS),
    Outcome.INVALID_REQUEST: Rule(next_target=NextTarget.NO),
    Outcome.CONTEXT_LENGTH: Rule(next_target=NextTarget.IF_LARGER),
    Outcome.CONTENT_FILTER: Rule(next_target=NextTarget.NO),
    Outcome.AUTH: Rule(breaker=BreakerEffect.TRIP_OR_CHECK, cooling=Cooling.UNTIL_PROBE),
    Outcome.MODEL_MISSING: Rule(breaker=BreakerEffect.CHECK, cooling=Cooling.UNTIL_PROBE),
    Outcome.RATE_LIMITED: Rule(same_target=SameTarget.AFTER_COOLING, cooling=Cooling.RETRY_AFTER),
    Outcome.UNAVAILABLE: Rule(same_target=SameTarget.AFTER_BACKOFF, breaker=BreakerEffect.FAILURE),
    Outcome.TIMEOUT: Rule(breaker=BreakerEffect.FAILURE),
    Outcome.MALFORMED: Rule(breaker=BreakerEffect.FAILURE),
    Outcome.SATURATED: Rule(),
    Outcome.CIRCUIT_OPEN: Rule(),
    Outcome.BUDGET: Rule(),
    Outcome.CANCELLED: Rule(next_target=NextTarget.NO),
}


class Phase(StrEnum):
    """Where a call was when its time ran out."""

    QUEUE = "queue"
    CONNECT = "connect"
    FIRST_TOKEN = "first_token"  # noqa: S105 - a phase, not a password
    STREAM = "stream"


class UpstreamError(Exception):
    """An attempt failed.

    Attributes:
        outcome: the error class, never OK.
        reason: a short token of our own that says more than the class (``http_503``, ``reset``,
            ``no_finish_reason``); never upstream text, safe to show to anyone.
        status: the HTTP status, or None where there was none.
        retry_after: seconds the upstream asked us to wait, or None.
        phase: what was being waited for, for TIMEOUT.
        usage: what the attempt consumed, where the upstream still told.
        input_index: which input of an embedding call was refused, where that is known.
        blameless: the failure says nothing against the upstream: a timer was cut short by the caller.
        refusal: what the caller is told where this is what ended the call, if it says that itself.
        ends_call: no other target is to be asked.
    """

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        phase: Phase | None = None,
        usage: Usage | None = None,
        input_index: int | None = None,
        blameless: bool = False,
        refusal: RouterError | None = None,
        ends_call: bool = False,
    ) -> None:
        super().__init__(f"{outcome}: {reason}")
        self.outcome = outcome
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        self.phase = phase
        self.usage = usage
        self.input_index = input_index
        self.blameless = blameless
        self.refusal = refusal
        self.ends_call = ends_call or RULES[outcome].next_target is NextTarget.NO


class Reason(StrEnum):
    """What the caller is told: the ErrorInfo reasons, domain ``modelrouter``."""

    INVALID_REQUEST = "INVALID_REQUEST"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    CAPABILITY_UNSUPPORTED = "CAPABILITY_UNSUPPORTED"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    CONTENT_FILTERED = "CONTENT_FILTERED"
    ROUTER_SATURATED = "ROUTER_SATURATED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    ALL_TARGETS_RATE_LIMITED = "ALL_TARGETS_RATE_LIMITED"
    ALL_TARGETS_FAILED = "ALL_TARGETS_FAILED"
    STREAM_INTERRUPTED = "STREAM_INTERRUPTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UPSTREAM_AUTH_FAILED = "UPSTREAM_AUTH_FAILED"
    UPSTREAM_MODEL_MISSING = "UPSTREAM_MODEL_MISSING"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request: its path in the contract's words, and what to do about it."""

    field: str
    description: str


class AttemptSummary(Record, frozen=True):
    """One try, as the caller sees it; times in seconds."""

    target: str
    provider: str
    outcome: Outcome | None
    """None while the attempt is still open."""
    duration: float = 0.0
    time_to_first_token: float | None = None
    error_reason: str = ""
    usage: Usage | None = None


class RouterError(Exception):
    """A call failed; everything in it may be shown to the caller.

    Attributes:
        reason: the row of the table.
        message: one plain sentence that says what was wrong and what to do.
        violations: the bad fields, for INVALID_REQUEST and CONTEXT_LENGTH_EXCEEDED.
        retry_after: seconds after which a retry may succeed, or None.
        phase: for DEADLINE_EXCEEDED.
        attempts: every try, in order.
        metadata: further ErrorInfo metadata.
        usage: what a broken stream consumed.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        phase: Phase | None = None,
        attempts: tuple[AttemptSummary, ...] = (),
        metadata: Mapping[str, str] | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.violations = violations
        self.retry_after = retry_after
        self.phase = phase
        self.attempts = attempts
        self.metadata = dict(metadata or {})
        self.usage = usage
