"""Budgets: how much may be spent for somebody in a day and in a month of their calendar.

Pure arithmetic of terms and periods. Refuses to know what has been spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import StrEnum

NANO_PER_USD = 1_000_000_000


class WhenSpent(StrEnum):
    """What happens to a call that a budget has not enough left for."""

    REFUSE = "refuse"
    """It ends, and its caller is told."""
    NEXT = "next"
    """Its next target is asked, which may be cheaper, or paid from elsewhere."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How much may be spent, in nano-USD; None is unlimited. ``zone`` says when days and months begin."""

    daily: int | None
    monthly: int | None
    when_spent: WhenSpent
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month.

    Attributes:
        name: ``2026-11-21`` or ``2026-11``, in the budget's own time zone.
        word: ``daily`` or ``monthly``.
        limit: nano-USD that may be spent in it.
        ends: seconds since the epoch.
    """

    name: str
    word: str
    limit: int
    ends: float


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of a budget is used in its period: ``word`` is ``daily`` or ``monthly``, ``used`` a share."""

    subject: str
    word: str
    used: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Whose it is, ``key/search`` or ``route/chat`` or ``provider/openai``, and what its terms are."""

    subject: str
    terms: Terms

    def periods(self, now: float) -> tuple[Period, ...]:
        """Return the periods that it limits and that are running at ``now``, seconds since the epoch."""
        terms = self.terms
        today = datetime.fromtimestamp(now, terms.zone).date()
        day = [] if terms.daily is None else [_day(today, terms.daily, terms.zone)]
        month = [] if terms.monthly is None else [_month(today, terms.monthly, terms.zone)]
        return (*day, *month)


def _day(today: date, limit: int, zone: tzinfo) -> Period:
    return Period(today.isoformat(), "daily", limit, _begin(today + timedelta(days=1), zone))


def _month(today: date, limit: int, zone: tzinfo) -> Period:
    # 31 days after the first of a month is always in the next one.
    following = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    return Period(today.strftime("%Y-%m"), "monthly", limit, _begin(following, zone))


def _begin(day: date, zone: tzinfo) -> float:
    return datetime.combine(day, time(), zone).timestamp()
