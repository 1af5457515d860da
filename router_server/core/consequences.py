"""What the end of an attempt means for its target: its breaker, its rest, its health, a check.

Refuses to know what an attempt is, and who is to blame for its failure.
"""

from __future__ import annotations

from collections.abc import Callable

from router_server.core.breaker import Pass
from router_server.core.errors import RULES, BreakerEffect, Cooling, UpstreamError
from router_server.core.target import Target

_FORBIDDEN = 403


def went_well(target: Target, leave: Pass) -> None:
    """The target has answered."""
    target.breaker.success(leave)
    target.cooldown.answered()
    if target.upstream.healthy is False:
        target.upstream.healthy = None


def failed(
    target: Target,
    failure: UpstreamError,
    effect: BreakerEffect,
    leave: Pass,
    check_soon: Callable[[Target, BreakerEffect], None],
) -> None:
    """The target has failed; ``effect`` is what its breaker is to be told of it."""
    breaker = target.breaker
    if effect is BreakerEffect.FAILURE:
        breaker.failure(leave)
    else:
        breaker.neutral(leave)
        if effect is BreakerEffect.TRIP_OR_CHECK and failure.status != _FORBIDDEN:
            breaker.trip()
        elif effect in {BreakerEffect.TRIP_OR_CHECK, BreakerEffect.CHECK}:
            check_soon(target, effect)
    cooling = RULES[failure.outcome].cooling
    if cooling is Cooling.RETRY_AFTER:
        target.cooldown.rate_limited(failure.retry_after)
    elif cooling is Cooling.UNTIL_PROBE:
        target.cooldown.bench(failure.outcome)
