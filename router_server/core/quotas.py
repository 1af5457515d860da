"""How much callers use: what is reserved before a call, and settled when it is known.

A window is any 60 seconds. Refuses to know who counts, and whether replicas count together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.principal import Quota

REQUESTS = "requests_per_minute"
TOKENS = "tokens_per_minute"
CONCURRENCY = "max_concurrency"
"""What a quota limits, in the words of the configuration."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is limited.

    Attributes:
        kind: ``caller``, ``user``, ``route`` or ``provider``.
        name: unique within its kind, and nothing that a log may not show.
        quota: how much it may use.
    """

    kind: str
    name: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one limit is used.

    Attributes:
        resource: whose, and what: ``caller requests_per_minute``.
        limit: how much may be used in 60 seconds, or at once.
        remaining: how much of it is left.
        reset: seconds until all of it is, if nothing more is used.
    """

    resource: str
    limit: int
    remaining: int
    reset: float


class Reservation(Protocol):
    """What was taken for one call."""

    @property
    def standing(self) -> Standing | None:
        """The limit of which the smallest part is left, or None where only calls at once are limited."""

    @property
    def given_back(self) -> Standing | None:
        """The same once all that was taken is given back."""

    def settle(self, *, requests: int, tokens: int) -> None:
        """Put what was used in place of what was taken, and give the places back. Does not wait."""


class QuotaExceededError(Exception):
    """A subject has used all that it may.

    Attributes:
        standing: of the limit that is used up.
        wait: seconds after which as much as was asked will be left, or None: more than there ever is.
    """

    def __init__(self, standing: Standing, wait: float | None) -> None:
        super().__init__(f"{standing.resource}: {standing.limit}")
        self.standing = standing
        self.wait = wait


class Quotas(Protocol):
    """Counts what subjects use."""

    async def reserve(
        self, subjects: Sequence[Subject], *, prompt: int, tokens: int, life: float
    ) -> Reservation:
        """Take one request, ``tokens`` and one place of every subject; of all of them or of none.

        Args:
            subjects: who is limited.
            prompt: tokens that will be used at least.
            tokens: tokens that may be used, the prompt's included.
            life: seconds after which the places are free again, if nobody settles.

        Raises:
            QuotaExceededError: nothing was taken.
        """


def refusal(error: QuotaExceededError) -> RouterError:
    """Return what the caller is told."""
    whose, _, what = error.standing.resource.partition(" ")
    limit = error.standing.limit
    if error.wait is None:
        message = f"The prompt alone is more than the {whose}'s {what} of {limit}; send a shorter one."
    else:
        message = f"The {whose}'s {what} of {limit} is used up; wait, or ask for a higher limit."
    return RouterError(
        Reason.QUOTA_EXCEEDED,
        message,
        violations=(Violation(whose, f"{what} is {limit}"),),
        retry_after=error.wait,
        metadata={"resource": error.standing.resource},
    )
