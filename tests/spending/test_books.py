"""The books in memory and in Redis against one model: what is spent and reserved never exceeds a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from router_server.core import shared
from router_server.core.budget import Budget, Terms, WhenSpent
from router_server.core.errors import UpstreamError
from router_server.core.funds import Hold
from router_server.spending.ledger import BudgetLedger
from router_server.state.memory import MemoryStore
from router_server.state.remote import RedisStore
from router_server.state.store import Store
from tests.state.servers import SharedServer, shared_server

NOON = 1_795_262_400.0
LASTING = 3_600.0
LIMITS = {"route/chat": (1_000, 5_000), "key/search": (700, None), "provider/a": (None, 2_000)}
BUDGETS = {
    name: Budget(name, Terms(daily, monthly, WhenSpent.REFUSE, UTC))
    for name, (daily, monthly) in LIMITS.items()
}
subjects = st.lists(st.sampled_from(sorted(BUDGETS)), min_size=1, unique=True)


@dataclass
class Model:
    """What the books should say of one subject and period."""

    limit: int
    spent: int = 0
    holds: dict[int, int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return self.spent + sum(self.holds.values())


class Books(RuleBasedStateMachine):
    """Two processes reserve and settle, in any order."""

    open_store: ClassVar[Any]
    holds: Any = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store: Store = self.loop.run_until_complete(self.open_store())
        self.ledgers = [BudgetLedger(self.store, clock=lambda: NOON) for _ in range(2)]
        self.model = {
            (name, period.name): Model(period.limit)
            for name, budget in BUDGETS.items()
            for period in budget.periods(NOON)
        }
        self.names = 0

    @rule(target=holds, names=subjects, amount=st.integers(1, 800), who=st.integers(0, 1))
    def reserves(self, names: list[str], amount: int, who: int) -> tuple[Hold | None, int, list[Model], int]:
        models = [model for (name, _), model in self.model.items() if name in names]
        fits = all(model.taken + amount <= model.limit for model in models)
        budgets = [BUDGETS[name] for name in names]
        try:
            hold = self.loop.run_until_complete(self.ledgers[who].reserve(budgets, amount, LASTING))
        except UpstreamError:
            assert not fits
            return None, 0, [], 0
        assert fits
        self.names += 1
        for model in models:
            model.holds[self.names] = amount
        return hold, amount, models, self.names

    @rule(held=consumes(holds), share=st.floats(0, 1))
    def settles(self, held: tuple[Hold | None, int, list[Model], int], share: float) -> None:
        hold, amount, models, name = held
        if hold is None:
            return
        cost = int(amount * share)
        hold.settle(cost)
        for ledger in self.ledgers:
            assert self.loop.run_until_complete(ledger.flush())
        for model in models:
            del model.holds[name]
            model.spent += cost

    @invariant()
    def nothing_exceeds_its_budget(self) -> None:
        for model in self.model.values():
            assert 0 <= model.taken <= model.limit

    @invariant()
    def what_was_heard_is_the_model_s(self) -> None:
        for ledger in self.ledgers:
            for account in ledger.accounts:
                model = self.model[account.budget.subject, account.period.name]
                assert account.spent <= model.spent
                assert account.lent == 0

    def teardown(self) -> None:
        for budget in BUDGETS.values():
            for ledger in self.ledgers:
                with pytest.raises(UpstreamError):
                    self.loop.run_until_complete(ledger.reserve([budget], 10**9, LASTING))
        for ledger in self.ledgers:
            for account in ledger.accounts:
                model = self.model[account.budget.subject, account.period.name]
                assert (account.spent, account.reserved) == (model.spent, sum(model.holds.values()))
        self.loop.run_until_complete(self.store.close())
        self.loop.close()


@pytest.fixture
def patient() -> Iterator[None]:
    """Waits for Redis as long as a busy machine needs."""
    token = shared._of_this_call.set(shared.Patience(1e9))
    yield
    shared._of_this_call.reset(token)


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


def test_in_memory() -> None:
    class InMemory(Books):
        @staticmethod
        async def open_store() -> Store:
            return MemoryStore(lambda: NOON)

    run_state_machine_as_test(InMemory, settings=settings(max_examples=60, deadline=None))


@pytest.mark.usefixtures("patient")
def test_in_redis(server: SharedServer) -> None:
    class InRedis(Books):
        @staticmethod
        async def open_store() -> Store:
            store = RedisStore(server.url)
            assert await store.connect()
            await store._redis.flushdb()
            return store

    run_state_machine_as_test(
        InRedis, settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )
