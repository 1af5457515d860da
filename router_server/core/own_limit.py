"""What a provider may be sent in any minute by the router's own will: less than it would answer with a 429.

A provider that has had its share is passed over like one that answered so. Refuses to know who counts.
"""

from __future__ import annotations

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.needs import longest_answer
from router_server.core.quotas import QuotaExceededError, Quotas, Reservation, Subject
from router_server.core.types import ChatRequest, EmbedRequest

_NO_PLACES = 1.0
"""Seconds of a lease that is never taken: calls at once are the limiter's matter."""


class OwnLimit:
    """The requests and tokens that one provider may be sent, by all its targets and endpoints together.

    Args:
        quotas: counts them.
        subject: the provider.
    """

    def __init__(self, quotas: Quotas, subject: Subject) -> None:
        self._quotas = quotas
        self._subjects = (subject,)

    async def reserve(self, request: ChatRequest | EmbedRequest, prompt: int, cap: int | None) -> Reservation:
        """Take one request and its tokens.

        Args:
            request: what is asked.
            prompt: about how many tokens it has.
            cap: how many the target answers with at most; None: any number.

        Raises:
            UpstreamError: RATE_LIMITED with the time after which there is room, or SATURATED where the prompt
                alone is more than the provider is ever sent in a minute.
        """
        tokens = prompt + longest_answer(request, cap)
        try:
            return await self._quotas.reserve(self._subjects, prompt=prompt, tokens=tokens, life=_NO_PLACES)
        except QuotaExceededError as error:
            if error.wait is None:
                raise UpstreamError(Outcome.SATURATED, "own_limit") from None
            raise UpstreamError(Outcome.RATE_LIMITED, "own_limit", retry_after=error.wait) from None
