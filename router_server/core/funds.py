"""What one call is paid from: before an attempt its worst cost is reserved, after it the real one is settled.

A target that costs nothing needs no funds. Refuses to know where budgets are kept, and how calls are routed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from router_server.core.budget import Budget
from router_server.core.errors import Outcome, Reason, RouterError, UpstreamError, Violation
from router_server.core.types import ChatRequest, Usage

if TYPE_CHECKING:
    from router_server.core.attempt import Attempt

T = TypeVar("T")

_LONGEST_ANSWER = 4_096
"""Tokens of an answer that neither its caller nor its target limits."""

_OUTLASTING = 60.0
"""Seconds by which a reservation outlasts its call: only one whose process died ever ends by that."""


class Hold(Protocol):
    """What is reserved for one attempt."""

    def settle(self, cost: int) -> None:
        """The attempt is over and cost ``cost`` nano-USD. Never waits."""


class Ledger(Protocol):
    """Where budgets are kept."""

    async def reserve(self, budgets: Sequence[Budget], amount: int, lasting: float) -> Hold:
        """Reserve ``amount`` nano-USD of every one of ``budgets``, or of none, for ``lasting`` seconds.

        Raises:
            UpstreamError: BUDGET: one of them has not enough left.
        """


class Funds:
    """What one call is paid from.

    Args:
        ledger: where budgets are kept.
        budgets: of the caller and of the route, as far as they have one.
    """

    def __init__(self, ledger: Ledger, budgets: Sequence[Budget]) -> None:
        self._ledger = ledger
        self._budgets = tuple(budgets)

    async def paying(self, attempt: Attempt, work: Callable[[Attempt], Awaitable[T]]) -> T:
        """Return what ``work`` returns, done by ``attempt`` and paid from all budgets that are concerned.

        Raises:
            UpstreamError: BUDGET, or what the attempt raises.
        """
        own = attempt.target.upstream.budget
        budgets = self._budgets if own is None else (*self._budgets, own)
        most = most_it_may_cost(attempt) if budgets else 0
        if most <= 0:
            return await attempt.run(work)
        hold = await self._ledger.reserve(budgets, most, attempt.call.time_left() + _OUTLASTING)
        try:
            return await attempt.run(work)
        finally:
            usage = attempt.record.usage if attempt.record else None
            hold.settle((usage.cost_nano_usd or 0) if usage else 0)


def most_it_may_cost(attempt: Attempt) -> int:
    """Return the nano-USD of the estimated prompt and the longest answer; 0 where no price is known."""
    prompt, request = attempt.call.prompt_tokens, attempt.call.request
    longest = 0
    if isinstance(request, ChatRequest):
        window = attempt.target.settings.context_window
        longest = attempt.target.settings.output_limit(request.generation) or _LONGEST_ANSWER
        longest = longest if window is None else min(longest, max(0, window - prompt))
    return attempt.target.settings.cost(Usage(prompt, longest)) or 0


def exhausted(budget: Budget, word: str, why: str, *, retry_after: float, ends_call: bool) -> UpstreamError:
    """Return the error of an attempt that a budget has not enough left for.

    Args:
        budget: which.
        word: of its period: ``daily`` or ``monthly``.
        why: one sentence.
        retry_after: seconds after which there may be enough.
        ends_call: no other target is to be asked.
    """
    refusal = RouterError(
        Reason.BUDGET_EXCEEDED,
        f"The {word} budget of {budget.subject} {why}",
        violations=(Violation(budget.subject, f"{word} budget"),),
        retry_after=retry_after,
        metadata={"budget": budget.subject, "period": word},
    )
    return UpstreamError(
        Outcome.BUDGET, "budget_exceeded", retry_after=retry_after, refusal=refusal, ends_call=ends_call
    )
