from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router_server.core.hedge import Budget, Hedging, Percentile
from router_server.core.latency import Latencies


class BudgetMachine(RuleBasedStateMachine):
    """Calls come, and hedge as often as they may: how many may is bounded from any moment on."""

    @initialize(max_extra=st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0]))
    def begin(self, max_extra: float) -> None:
        self.max_extra = max_extra
        self.budget = Budget(max_extra)
        self.calls = self.hedges = 0
        self.least = 0.0
        """The least that hedges - max_extra * calls has been: since then no more than ten have been sent."""

    @rule(count=st.integers(1, 200))
    def calls_come(self, count: int) -> None:
        for _ in range(count):
            self.budget.called()
            self.calls += 1
            self._note()

    @rule(wishes=st.integers(1, 40))
    def some_are_late(self, wishes: int) -> None:
        for _ in range(wishes):
            if self.budget.allows:
                self.budget.spend()
                self.hedges += 1

    @invariant()
    def never_more_than_the_share_of_all_calls(self) -> None:
        if hasattr(self, "budget"):
            assert self.hedges <= self.max_extra * self.calls + 1e-6

    @invariant()
    def never_more_than_the_share_and_ten_since_any_moment(self) -> None:
        if hasattr(self, "budget"):
            assert self.hedges - self.max_extra * self.calls - self.least <= 10 + 1e-6

    def _note(self) -> None:
        self.least = min(self.least, self.hedges - self.max_extra * self.calls)


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(("max_extra", "first"), [(0.05, 20), (0.1, 10), (0.3, 4), (1.0, 1)])
def test_the_first_hedge_comes_when_it_has_been_earned(max_extra: float, first: int) -> None:
    budget = Budget(max_extra)
    for _ in range(first - 1):
        budget.called()
        assert not budget.allows
    budget.called()
    assert budget.allows


def test_a_quiet_hour_saves_up_no_more_than_ten() -> None:
    budget = Budget(0.05)
    for _ in range(10_000):
        budget.called()
    sent = 0
    while budget.allows:
        budget.spend()
        sent += 1
    assert sent == 10


def test_patience_is_a_percentile_once_it_is_known_or_what_was_configured() -> None:
    known = Latencies(lambda: 0.0)
    assert Hedging(0.3).patience(known) == 0.3
    assert Hedging(Percentile.P95).patience(known) is None
    for n in range(1, 101):
        known.add(n / 100)
    assert [Hedging(p).patience(known) for p in Percentile] == [0.5, 0.9, 0.95, 0.99]
