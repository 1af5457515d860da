"""The part of the tree that says how much may be spent. Refuses to know for whom, and what has been."""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from router_server.config.section import PARTIAL, Section
from router_server.core.budget import NANO_PER_USD, Terms, WhenSpent


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "is no time zone of this machine; write UTC, or Europe/Berlin for example (tzdata has all)"
        ) from None
    return name


Usd = Annotated[float, Field(gt=0, le=9_000_000)]
"""US dollars; the most that is exact in billionths where Redis counts them."""


class BudgetConfig(Section):
    """How much may be spent in a day and in a month of the calendar."""

    daily_usd: Usd | None = Field(default=None, description="US dollars in a day; null: any sum")
    monthly_usd: Usd | None = Field(default=None, description="US dollars in a month; null: any sum")
    on_exhausted: WhenSpent = Field(
        default=WhenSpent.REFUSE,
        description="a call that does not fit is refused (refuse), or goes on with its next target (next)",
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="in which days and months begin"
    )

    @model_validator(mode="before")
    @classmethod
    def _limits_something(cls, data: Any, info: ValidationInfo) -> Any:
        whole = isinstance(data, dict) and not (info.context or {}).get(PARTIAL)
        if whole and data.get("daily_usd") is None and data.get("monthly_usd") is None:
            raise ValueError("limits nothing; set daily_usd or monthly_usd, or remove budget")
        return data

    @property
    def terms(self) -> Terms:
        """The same for the core."""
        return Terms(
            _nano(self.daily_usd), _nano(self.monthly_usd), self.on_exhausted, ZoneInfo(self.timezone)
        )


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANO_PER_USD)


def budget_words(budget: BudgetConfig) -> str:
    """Return for example ``5 USD a day and 100 USD a month (Europe/Berlin), then the next target``."""
    sums = [f"{budget.daily_usd:g} USD a day"] if budget.daily_usd is not None else []
    sums += [f"{budget.monthly_usd:g} USD a month"] if budget.monthly_usd is not None else []
    then = "refuses" if budget.on_exhausted is WhenSpent.REFUSE else "goes on with the next target"
    return f"{' and '.join(sums)} ({budget.timezone}), then {then}"
