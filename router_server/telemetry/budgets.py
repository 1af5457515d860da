"""How much of each budget is used, as a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from router_server.core.budget import BudgetUse
from router_server.telemetry import instruments, semconv

Uses = Callable[[], Sequence[BudgetUse]]


def nothing_budgeted() -> Sequence[BudgetUse]:
    """Return nothing: nobody has a budget."""
    return ()


def observe_budgets(meter: Meter, uses: Uses) -> None:
    """Make the metric of what ``uses`` gives whenever it is read, on any thread."""

    def read(options: CallbackOptions) -> Iterable[Observation]:
        del options
        for one in uses():
            yield Observation(one.used, {semconv.LABEL_BUDGET: one.subject, semconv.LABEL_PERIOD: one.word})

    metric = instruments.BUDGET_USED
    meter.create_observable_gauge(metric.name, [read], metric.unit, metric.description)
