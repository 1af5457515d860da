"""What budgets have left: reserved before an attempt, settled after it, shared by all replicas.

While the shared state is gone a process lends: up to one hundredth of a budget, and no more than was left of
it when it was last heard of. What it settles then is kept, and told once the state is back. So all replicas
together spend at most what the budget allows, and one hundredth of it for each of them. Refuses to know what
is paid for.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NoReturn

from router_server.core.budget import Budget, BudgetUse, Period, WhenSpent
from router_server.core.errors import UpstreamError
from router_server.core.funds import Hold, exhausted
from router_server.core.shared import UnreachableError, patience
from router_server.spending.books import RESERVE, SETTLE
from router_server.state.store import Argument, Reply, Store, key

LEASE: Final = 100
"""What a process may lend is its budget, divided by this."""

_KEPT: Final = 86_400.0
"""Seconds for which a book is kept after its period: for what is settled late, and for whoever looks."""

_LEND_AGAIN: Final = 5.0
"""Seconds after which a caller may try again whom a process could lend nothing."""

_BATCH: Final = 32
_PAUSE: Final = 0.2
"""Settlements in one step, and seconds until the next try of one that did not arrive."""

_SHOWN: Final = 200
"""Accounts in metrics, at most: tenants of tokens may be many."""

_FEW: Final = 256
"""Accounts below which nobody looks for those whose time is over."""


@dataclass(slots=True)
class Account:
    """A budget in one period, as this process knows it; nano-USD.

    Attributes:
        budget: whose.
        period: which, with its limit.
        spent: by all replicas, when that was last heard.
        reserved: likewise.
        heard: it was heard at all.
        lent: what this process has reserved and spent by itself, and could not tell yet.
        refused: a call did not fit.
    """

    budget: Budget
    period: Period
    spent: int = 0
    reserved: int = 0
    heard: bool = False
    lent: int = 0
    refused: bool = False

    @property
    def keys(self) -> tuple[str, str]:
        """The names of its book and of its holds."""
        parts = (self.budget.subject, self.period.name)
        return key("budget", *parts), key("budget", *parts, "holds")

    def used_with(self, amount: int) -> int:
        """What would be spent or reserved by all replicas, as last heard, with ``amount`` more."""
        return self.spent + self.reserved + amount

    @property
    def refuses(self) -> bool:
        """Tell whether it ends a call that does not fit; else another target may be asked."""
        return self.budget.terms.when_spent is WhenSpent.REFUSE

    @property
    def used(self) -> int:
        """What is spent or reserved, as far as this process knows."""
        return self.spent + self.reserved + self.lent

    def hear(self, spent: int, reserved: int) -> None:
        """Take note of what the shared state says."""
        self.spent, self.reserved, self.heard = spent, reserved, True

    def lends(self, amount: int) -> bool:
        """Tell whether this process may spend ``amount`` by itself."""
        lease = self.period.limit // LEASE
        if self.heard:
            lease = min(lease, self.period.limit - self.spent - self.reserved)
        return self.lent + amount <= lease

    def ttl(self, now: float) -> int:
        """Return the milliseconds that its book is to live on."""
        return max(1_000, round((self.period.ends + _KEPT - now) * 1_000))


Heard = Callable[[Account], None]
"""Told of an account whenever something new is known of it."""


@dataclass(slots=True)
class _Held:
    """What one attempt has reserved."""

    name: str
    amount: int
    accounts: tuple[Account, ...]
    settled: Callable[[_Held, int], None] = field(repr=False)
    lent: bool = False

    def settle(self, cost: int) -> None:
        self.settled(self, cost)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be written of one hold into one account."""

    held: _Held
    account: Account
    cost: int


class BudgetLedger:
    """Keeps budgets.

    Args:
        store: where replicas share them, or the memory of this process.
        shares: among how many processes that share nothing each budget is divided.
        heard: see `Heard`.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        shares: int = 1,
        heard: Heard = lambda _account: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._shares = shares
        self._heard = heard
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._names = itertools.count()
        self._batches = itertools.count(1)
        self._accounts: dict[tuple[str, str], Account] = {}
        self._sweep_at = _FEW
        self._backlog: deque[_Entry] = deque()
        self._batch: tuple[int, Sequence[_Entry]] | None = None
        self._something = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def accounts(self) -> Sequence[Account]:
        """What is known of every budget that was used here."""
        return tuple(self._accounts.values())

    def uses(self) -> Sequence[BudgetUse]:
        """Return how much of the budgets is used, of the first ones only where there are very many."""
        now = self._clock()
        running = [one for one in self.accounts if one.period.ends > now and one.period.limit > 0]
        return [
            BudgetUse(one.budget.subject, one.period.word, one.used / one.period.limit)
            for one in running[:_SHOWN]
        ]

    async def reserve(self, budgets: Sequence[Budget], amount: int, lasting: float) -> Hold:
        """Reserve ``amount`` of each budget, or of none.

        Raises:
            UpstreamError: BUDGET: one of them has not enough left.
        """
        now = self._clock()
        accounts = tuple(self._account(b, p) for b in budgets for p in b.periods(now))
        held = _Held(f"{self._process}:{next(self._names)}", amount, accounts, self._settled)
        try:
            reply = await self._ask(held, lasting, now)
            if reply[0] and (self._batch or self._backlog) and await self._flush_in_time():
                # What the call's own attempt before this one had reserved may be free now.
                reply = await self._ask(held, lasting, now)
        except UnreachableError:
            self._lend(held)
        except asyncio.CancelledError:
            # Nobody knows whether it was done: it is undone.
            held.settle(0)
            raise
        else:
            if reply[0]:
                self._refuse(held, now)
        return held

    async def run(self) -> None:
        """Write down what was settled, until cancelled."""
        while True:
            await self._something.wait()
            if not await self.flush():
                await asyncio.sleep(_PAUSE)

    async def flush(self) -> bool:
        """Write down what was settled so far; tell whether all of it was."""
        async with self._one_at_a_time:
            while self._batch or self._backlog:
                if self._batch is None:
                    count = min(_BATCH, len(self._backlog))
                    self._batch = next(self._batches), [self._backlog.popleft() for _ in range(count)]
                try:
                    reply = await self._write(*self._batch)
                except UnreachableError:
                    # The same batch under the same number once more: it may have been written all the same.
                    return False
                self._written(self._batch[1], reply)
                self._batch = None
            self._something.clear()
            return True

    async def _flush_in_time(self) -> bool:
        """Do `flush` as far as the call's patience allows, which includes waiting for who does it already."""
        left, now = patience(), asyncio.get_running_loop().time
        before, began = left.left, now()
        try:
            async with asyncio.timeout(before):
                return await self.flush()
        except TimeoutError:
            return False
        finally:
            left.left = min(left.left, before - (now() - began))

    async def _ask(self, held: _Held, lasting: float, now: float) -> Reply:
        keys = [name for account in held.accounts for name in account.keys]
        arguments: list[Argument] = [held.name, held.amount, round(lasting * 1_000)]
        for account in held.accounts:
            arguments += [account.period.limit, account.spent, account.ttl(now)]
        reply = await self._store.run(RESERVE, keys, arguments)
        for i, account in enumerate(held.accounts):
            self._hear(account, int(reply[1 + 2 * i]), int(reply[2 + 2 * i]))
        return reply

    def _refuse(self, held: _Held, now: float) -> NoReturn:
        # All of them, where a reload has changed terms since they were asked.
        short = [a for a in held.accounts if a.used_with(held.amount) > a.period.limit] or held.accounts
        for account in short:
            account.refused = True
            self._heard(account)
        # The strictest of them decides, and of those the one that lasts longest.
        account = max(short, key=lambda one: (one.refuses, one.period.ends))
        left = account.period.limit - account.spent - account.reserved
        why = (
            "is used up" if left <= 0 else "has not enough left for this call, for which fewer tokens may do"
        )
        anew = datetime.fromtimestamp(account.period.ends, account.budget.terms.zone).isoformat()
        raise _refusal(account, f"{why}. It begins anew at {anew}.", max(1.0, account.period.ends - now))

    def _lend(self, held: _Held) -> None:
        for account in held.accounts:
            if not account.lends(held.amount):
                # A reservation whose answer was lost is taken back.
                held.settle(0)
                why = "cannot be looked up, and what this process may spend meanwhile is spent."
                raise _refusal(account, why, _LEND_AGAIN)
        held.lent = True
        for account in held.accounts:
            account.lent += held.amount

    def _settled(self, held: _Held, cost: int) -> None:
        for account in held.accounts:
            if held.lent:
                account.lent += cost - held.amount
            self._backlog.append(_Entry(held, account, cost))
        self._something.set()

    async def _write(self, number: int, entries: Sequence[_Entry]) -> Reply:
        now = self._clock()
        keys = [key("budget", "batch", self._process)]
        arguments: list[Argument] = [number]
        for entry in entries:
            keys += entry.account.keys
            account, held = entry.account, entry.held
            arguments += [held.name, held.amount, entry.cost, account.spent, account.ttl(now)]
        return await self._store.run(SETTLE, keys, arguments)

    def _written(self, entries: Sequence[_Entry], reply: Reply) -> None:
        for i, entry in enumerate(entries):
            if entry.held.lent:
                entry.account.lent -= entry.cost
            if reply:
                self._hear(entry.account, int(reply[2 * i]), int(reply[2 * i + 1]))

    def _hear(self, account: Account, spent: int, reserved: int) -> None:
        account.hear(max(spent, account.spent), reserved)
        self._heard(account)

    def _account(self, budget: Budget, period: Period) -> Account:
        name = (budget.subject, period.name)
        if self._shares > 1:
            period = replace(period, limit=period.limit // self._shares)
        account = self._accounts.get(name)
        if account is None:
            self._sweep()
            account = self._accounts[name] = Account(budget, period)
        # Terms may have changed while it runs.
        account.budget, account.period = budget, period
        return account

    def _sweep(self) -> None:
        if len(self._accounts) >= self._sweep_at:
            now = self._clock()
            self._accounts = {n: a for n, a in self._accounts.items() if a.period.ends > now or a.lent}
            self._sweep_at = max(_FEW, 2 * len(self._accounts))


def _refusal(account: Account, why: str, retry_after: float) -> UpstreamError:
    return exhausted(
        account.budget,
        account.period.word,
        why,
        retry_after=retry_after,
        ends_call=account.refuses,
    )
