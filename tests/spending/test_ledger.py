"""The ledger while its store is away, and among processes that share nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from router_server.core.budget import Budget, Terms, WhenSpent
from router_server.core.errors import UpstreamError
from router_server.core.shared import be_patient_once
from router_server.spending.ledger import BudgetLedger
from router_server.state.memory import MemoryStore
from tests.state.servers import SharedServer, connected, shared_server

NOON = 1_795_262_400.0
BUDGET = Budget("route/chat", Terms(1_000, None, WhenSpent.NEXT, UTC))


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


async def fits(ledger: BudgetLedger, amount: int) -> bool:
    try:
        await ledger.reserve([BUDGET], amount, 60.0)
    except UpstreamError:
        return False
    return True


async def test_processes_that_share_nothing_have_a_part_each() -> None:
    ledger = BudgetLedger(MemoryStore(lambda: NOON), shares=4, clock=lambda: NOON)
    assert not await fits(ledger, 251)
    assert await fits(ledger, 250)
    assert not await fits(ledger, 1)


async def test_a_new_day_is_a_new_budget() -> None:
    now = NOON
    ledger = BudgetLedger(MemoryStore(lambda: now), clock=lambda: now)
    assert await fits(ledger, 1_000)
    assert not await fits(ledger, 1)
    now += 43_200.0
    assert await fits(ledger, 1_000)


async def test_what_never_answered_lends_one_hundredth_and_hears_of_it_later(server: SharedServer) -> None:
    async with connected(server.url) as store:
        server.kill()
        ledger = BudgetLedger(store, clock=lambda: NOON)
        hold = await ledger.reserve([BUDGET], 6, 60.0)
        assert not await fits(ledger, 5)
        assert await fits(ledger, 4)
        hold.settle(2)
        assert await fits(ledger, 4)
        assert not await fits(ledger, 1)
        assert not await ledger.flush()
        [account] = ledger.accounts
        assert (account.lent, account.spent) == (10, 0)
        server.start()
        while not await store._circuit.recovered():
            pass
        while not await ledger.flush():
            pass
        assert (account.lent, account.spent, account.heard) == (8, 2, True)


async def test_a_store_that_says_nothing_takes_a_call_no_more_than_its_patience(server: SharedServer) -> None:
    async with connected(server.url) as store:
        ledger = BudgetLedger(store, clock=lambda: NOON)
        server.freeze()
        be_patient_once()
        for _ in range(5):
            assert await fits(ledger, 1), "lent"
        asked = store.snapshot.asked
        assert asked["reserve_budget", "timeout"] == 1, "the first wait was all the patience that there is"
        assert asked["reserve_budget", "skipped"] == 4
