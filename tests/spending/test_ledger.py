"""The ledger while its store is away, and among processes that share nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest

from router_server.core.budget import Budget, Terms, WhenSpent
from router_server.core.errors import UpstreamError
from router_server.core.shared import UnreachableError, be_patient_once, patience
from router_server.spending.ledger import BudgetLedger
from router_server.state.memory import MemoryStore
from router_server.state.store import Argument, Reply, Script
from tests.clock import virtual_time
from tests.state.servers import SharedServer, connected, shared_server

NOON = 1_795_262_400.0
BUDGET = Budget("route/chat", Terms(1_000, None, WhenSpent.NEXT, UTC))


@pytest.fixture
def server() -> Iterator[SharedServer]:
    with TemporaryDirectory(prefix="mr") as folder, shared_server(Path(folder)) as running:
        yield running


async def fits(ledger: BudgetLedger, amount: int, budget: Budget = BUDGET) -> bool:
    try:
        await ledger.reserve([budget], amount, 200_000.0)
    except UpstreamError:
        return False
    return True


def ends_at(error: UpstreamError) -> tuple[str, float, bool]:
    assert error.refusal is not None
    assert error.retry_after is not None
    return error.refusal.metadata["period"], NOON + error.retry_after, error.ends_call


async def test_of_several_that_are_spent_the_strictest_and_the_longest_is_told() -> None:
    both = Budget("route/chat", Terms(1_000, 1_000, WhenSpent.NEXT, UTC))
    strict = Budget("key/search", Terms(1_000, None, WhenSpent.REFUSE, UTC))
    ledger = BudgetLedger(MemoryStore(lambda: NOON), clock=lambda: NOON)
    await ledger.reserve([both, strict], 1_000, 60.0)
    tomorrow = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    for budgets, told in (
        ([both], ("monthly", december, False)),
        ([both, strict], ("daily", tomorrow, True)),
    ):
        with pytest.raises(UpstreamError) as refused:
            await ledger.reserve(budgets, 1, 60.0)
        assert ends_at(refused.value) == told
    assert all(account.refused for account in ledger.accounts)


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


@pytest.mark.parametrize(
    ("begins", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24), ("2026-12-31", 24)]
)
async def test_a_day_is_as_long_as_it_is_where_the_budget_is(begins: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    midnight = datetime.fromisoformat(begins).replace(tzinfo=zone).timestamp()
    now = midnight - 1.0
    ledger = BudgetLedger(MemoryStore(lambda: now), clock=lambda: now)
    berlin = Budget("route/chat", Terms(1_000, 1_000_000, WhenSpent.REFUSE, zone))
    yesterday = await ledger.reserve([berlin], 1_000, 60.0)
    now = midnight
    assert await fits(ledger, 1_000, berlin), "a new day, also while a call of the old one runs"
    yesterday.settle(700)
    now = midnight + hours * 3_600.0 - 1.0
    assert not await fits(ledger, 1, berlin)
    assert await ledger.flush()
    now += 1.0
    assert await fits(ledger, 1_000, berlin)
    spent = {account.period.name: account.spent for account in ledger.accounts if account.spent}
    before = datetime.fromtimestamp(midnight - 1.0, zone)
    assert spent == {before.strftime("%Y-%m-%d"): 700, before.strftime("%Y-%m"): 700}


async def test_a_month_is_over_when_it_is_over_where_the_budget_is() -> None:
    zone = ZoneInfo("Pacific/Auckland")
    april = datetime(2026, 4, 1, tzinfo=zone).timestamp()
    now = april - 1.0
    ledger = BudgetLedger(MemoryStore(lambda: now), clock=lambda: now)
    there = Budget("route/chat", Terms(None, 1_000, WhenSpent.REFUSE, zone))
    assert await fits(ledger, 1_000, there)
    assert not await fits(ledger, 1, there)
    now = april
    assert await fits(ledger, 1_000, there)


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


async def test_what_is_lent_is_no_more_than_was_left_when_that_was_last_heard(server: SharedServer) -> None:
    async with connected(server.url) as store:
        ledger = BudgetLedger(store, clock=lambda: NOON)
        hold = await ledger.reserve([BUDGET], 996, 60.0)
        hold.settle(996)
        while not await ledger.flush():
            pass
        server.kill()
        assert not await fits(ledger, 5), "one hundredth is 10, and 4 are left"
        assert await fits(ledger, 4)


class LateStore(MemoryStore):
    """Does what it is asked at once, and says so after a second."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        reply = await super().run(script, keys, arguments)
        await asyncio.sleep(1.0)
        return reply


@virtual_time
async def test_a_caller_who_leaves_while_it_is_reserved_leaves_nothing_reserved() -> None:
    ledger = BudgetLedger(LateStore(lambda: NOON), clock=lambda: NOON)
    leaving = asyncio.create_task(ledger.reserve([BUDGET], 1_000, 60.0))
    await asyncio.sleep(0.5)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    assert await ledger.flush()
    assert await fits(ledger, 1_000)


class SlowStore(MemoryStore):
    """Answers after 20 ms, as far as whoever asks is that patient."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        left = patience()
        wait = min(0.02, left.left)
        await asyncio.sleep(wait)
        left.left -= wait
        if wait < 0.02:
            raise UnreachableError
        return await super().run(script, keys, arguments)


@virtual_time
async def test_a_call_does_not_wait_for_what_others_have_settled() -> None:
    loop = asyncio.get_running_loop()
    ledger = BudgetLedger(SlowStore(lambda: NOON), clock=lambda: NOON)
    holds = [await ledger.reserve([BUDGET], 1, 60.0) for _ in range(1_000)]
    for hold in holds:
        hold.settle(0)
    writing = asyncio.create_task(ledger.run())
    await asyncio.sleep(0.01)
    be_patient_once()
    began = loop.time()
    assert not await fits(ledger, 900), "most of what is free by now is not yet written down"
    assert loop.time() - began <= 0.05 + 1e-9
    await asyncio.sleep(10.0)
    be_patient_once()
    assert await fits(ledger, 1_000)
    writing.cancel()


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
