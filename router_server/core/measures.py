"""What an attempt learns while it runs: moments, usage, names. Arithmetic only."""

from __future__ import annotations

from router_server.core.errors import Outcome, Phase, UpstreamError
from router_server.core.needs import part_tokens
from router_server.core.types import Answer, EngineTimes, FinishReason, Message, Usage

_BILLED_ALL_THE_SAME = frozenset({Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.MALFORMED})
"""How an attempt may end whose upstream was sent the prompt, and bills at least that."""


class Measures:
    """Moments are seconds of the call's clock; None where they have not come."""

    permitted_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    time_to_first_token: float | None = None
    """Seconds from the permit to the first event."""
    usage: Usage | None = None
    reported_model: str = ""
    finish_reason: FinishReason | None = None
    answer: Message | None = None
    engine: EngineTimes | None = None

    def began(self, now: float) -> None:
        """The first event came."""
        self.first_token_at = now
        self.time_to_first_token = None if self.permitted_at is None else now - self.permitted_at

    def answered(self, answer: Answer, prompt_tokens: int) -> None:
        """A whole answer came; where it brings no usage, the router counts."""
        self.usage = answer.usage or Usage(prompt_tokens, _tokens_of(answer.message), estimated=True)
        self.reported_model = answer.reported_model
        self.finish_reason = answer.finish_reason
        self.answer = answer.message
        self.engine = answer.engine

    def consumed(self, failure: UpstreamError, prompt_tokens: int) -> Usage | None:
        """Return what a failure used: what was measured, else told, else the prompt if it was sent."""
        told = self.usage or failure.usage
        if told is not None or failure.outcome not in _BILLED_ALL_THE_SAME:
            return told
        sent = self.permitted_at is not None and failure.phase is not Phase.CONNECT and failure.status is None
        return Usage(prompt_tokens, estimated=True) if sent else None

    def time_per_token(self, usage: Usage | None) -> float | None:
        """Return the mean seconds between tokens after the first, or None where there were fewer than two."""
        if self.first_token_at is None or self.last_token_at is None:
            return None
        if usage is None or usage.output_tokens <= 1:
            return None
        return (self.last_token_at - self.first_token_at) / (usage.output_tokens - 1)


def _tokens_of(message: Message) -> int:
    return sum(part_tokens(part) for part in message.content)
