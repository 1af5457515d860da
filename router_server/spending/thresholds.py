"""People are told when a budget reaches a share of itself, once in its period. Refuses to know how."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Final

from router_server.core.alerts import Alerts
from router_server.core.budget import NANO_PER_USD
from router_server.spending.ledger import Account

_WHOLE: Final = 1.0
_LONGEST_PERIOD: Final = 32 * 86_400.0
"""Seconds: the name of the period is in what an alert is about, so that the next one is told of anew."""


class Thresholds:
    """Looks at what is heard of budgets.

    The whole of a budget counts as reached once a call did not fit: what is reserved keeps the sum from ever
    being spent to the last cent.
    """

    def __init__(self) -> None:
        self._shares: Sequence[float] = ()
        self._told: dict[tuple[str, str], set[float]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._alerts: Alerts | None = None

    def change(self, shares: Sequence[float], alerts: Alerts | None) -> None:
        """From now on tell people through ``alerts``, None: nobody, at ``shares``: above 0, at most 1."""
        self._shares = sorted(shares)
        self._alerts = alerts
        # What was told before is told once all the same: alerts know what they are about.
        self._told.clear()

    def heard(self, account: Account) -> None:
        """Take note of an account of which something new is known. Never waits."""
        if self._alerts is None:
            return
        name = (account.budget.subject, account.period.name)
        # Each for itself: a call that does not fit may come before any share is spent.
        for share in self._shares:
            if share not in self._told.get(name, ()) and _reached(account, share):
                self._tell(self._alerts, account, share)
                self._told.setdefault(name, set()).add(share)

    async def close(self) -> None:
        """End what is still being told."""
        telling = list(self._telling)
        for task in telling:
            task.cancel()
        if telling:
            await asyncio.wait(telling)

    def _tell(self, alerts: Alerts, account: Account, share: float) -> None:
        about = f"budget/{account.budget.subject}/{account.period.name}/{share:g}"
        # A context of its own: the call's patience with shared state is not this alert's.
        task = asyncio.create_task(
            alerts.raised(about, _words(account, share), _LONGEST_PERIOD), name=about, context=Context()
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _reached(account: Account, share: float) -> bool:
    return account.spent >= share * account.period.limit or (share >= _WHOLE and account.refused)


def _words(account: Account, share: float) -> str:
    period, subject = account.period, account.budget.subject
    digits = 2 if period.limit >= NANO_PER_USD else 6
    spent, limit = (f"{sum_ / NANO_PER_USD:.{digits}f}" for sum_ in (account.spent, period.limit))
    what = "has not enough left for every call" if share >= _WHOLE else f"has reached {share:.0%}"
    return f"The {period.word} budget of {subject} ({period.name}) {what}: {spent} of {limit} USD are spent."
