"""What a caller is told when no target answered: the errors of a call's end.

Pure. Refuses to know how the call came there; `plan` does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from router_server.core.errors import Outcome, Phase, Reason, RouterError, UpstreamError, Violation
from router_server.core.types import StreamRecovery


def deadline_error(phase: Phase) -> RouterError:
    """Return the error of a call whose time ran out in ``phase``."""
    return RouterError(
        Reason.DEADLINE_EXCEEDED,
        f"The deadline passed while the call was in phase {phase.value}. Allow more time, or ask for less.",
        phase=phase,
    )


_AFTER_A_BREAK = {
    StreamRecovery.NONE: "What was delivered is not the whole answer. Ask again, or for stream recovery.",
    StreamRecovery.RESTART: "No target could begin anew: forget what was delivered. Ask again later.",
    StreamRecovery.RESUME: "No target could go on: what was delivered is a part. Ask again later.",
}


def interrupted(why: str, recovery: StreamRecovery) -> RouterError:
    """Return the error of a stream that broke before its answer was whole, with this ``recovery``."""
    return RouterError(
        Reason.STREAM_INTERRUPTED,
        f"The stream broke before the answer was whole: {why}. {_AFTER_A_BREAK[recovery]}",
    )


def refusal(error: UpstreamError) -> RouterError:
    """Return the error of a call that one target's failure ended: no other was to be asked."""
    match error.outcome:
        case Outcome.CONTENT_FILTER:
            what = "the request" if error.input_index is None else f"inputs[{error.input_index}]"
            return RouterError(
                Reason.CONTENT_FILTERED, f"The provider's content filter refused {what}. Change its content."
            )
        case Outcome.INVALID_REQUEST:
            return _refused(error)
        case _:
            return RouterError(
                Reason.STREAM_INTERRUPTED,
                "The caller took nothing for too long. Read the stream as it arrives, or ask for less.",
            )


def _refused(error: UpstreamError) -> RouterError:
    field = "" if error.input_index is None else f"inputs[{error.input_index}]"
    return RouterError(
        Reason.INVALID_REQUEST,
        "The provider refused the request as invalid; no other target was asked. Check its parameters.",
        violations=(Violation(field, f"refused by the provider ({error.reason})"),),
    )


_FAILURES = frozenset({Outcome.UNAVAILABLE, Outcome.TIMEOUT, Outcome.MALFORMED, Outcome.CIRCUIT_OPEN})
_NOT_BY_WAITING = frozenset({Outcome.AUTH, Outcome.MODEL_MISSING, Outcome.CONTEXT_LENGTH})
"""What a later retry meets again: somebody has to mend something first."""

_RETRY_SOON = 1.0
"""Seconds, where nothing tells better when a retry may succeed."""


def exhausted(
    outcomes: Sequence[tuple[Outcome, float]], too_long: str, over_budget: RouterError | None = None
) -> RouterError:
    """Return the error of a call that no target answered.

    Args:
        outcomes: each target's last outcome, and the seconds until it may be asked again, 0 if not known.
        too_long: the field to blame for a prompt that is too long for all.
        over_budget: what is told where targets were passed over for want of money.
    """
    kinds = {outcome for outcome, _wait in outcomes}
    if kinds & _FAILURES:
        return RouterError(
            Reason.ALL_TARGETS_FAILED,
            "Every target of the route failed. Try again later.",
            retry_after=_soonest(outcomes),
        )
    if Outcome.SATURATED in kinds:
        return RouterError(
            Reason.ROUTER_SATURATED,
            "The router's queues are full. Try again later.",
            retry_after=_soonest(outcomes),
        )
    if Outcome.RATE_LIMITED in kinds:
        return RouterError(
            Reason.ALL_TARGETS_RATE_LIMITED,
            "Every target of the route is rate-limited by its provider. Try again later.",
            retry_after=min(wait for outcome, wait in outcomes if outcome is Outcome.RATE_LIMITED),
        )
    if Outcome.BUDGET in kinds:
        return over_budget or RouterError(
            Reason.BUDGET_EXCEEDED,
            "A budget has not enough left. Try again when its period is over.",
            retry_after=min(wait for outcome, wait in outcomes if outcome is Outcome.BUDGET),
        )
    if Outcome.CONTEXT_LENGTH in kinds:
        return RouterError(
            Reason.CONTEXT_LENGTH_EXCEEDED,
            "The request is too long for every target of the route. Shorten it.",
            violations=(Violation(too_long, "more tokens than any target's context window"),),
        )
    return _to_be_mended(kinds)


def _to_be_mended(kinds: Collection[Outcome]) -> RouterError:
    if Outcome.AUTH in kinds:
        return RouterError(
            Reason.UPSTREAM_AUTH_FAILED,
            "The provider refused the router's credentials. The operators of the router must mend its key.",
        )
    return RouterError(
        Reason.UPSTREAM_MODEL_MISSING,
        "The provider does not know the route's model. The operators of the router must mend the route.",
    )


def _soonest(outcomes: Sequence[tuple[Outcome, float]]) -> float:
    """Return the smallest wait of the targets that waiting helps."""
    return min(wait or _RETRY_SOON for outcome, wait in outcomes if outcome not in _NOT_BY_WAITING)
