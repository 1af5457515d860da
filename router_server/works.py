"""The works: what answers calls in one process, and all that goes on beside them.

One configuration after another goes into service here, with the state that they share, budgets, engines,
checks and alerts. Refuses to know who brings the calls: a server puts a door before it, and so may a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from router_server.alerting import Alerting
from router_server.assembled import Assembly
from router_server.assembly import assemble
from router_server.background import background
from router_server.config.tree import Config
from router_server.core.observer import Observer
from router_server.engines.running import Engines, EnginesSeen, engines_running
from router_server.spending.ledger import BudgetLedger
from router_server.spending.opening import budgets_kept
from router_server.spending.thresholds import Thresholds
from router_server.state.opening import State
from router_server.state.windows import SharedQuotas
from router_server.succession import Make, Succession
from router_server.surroundings import prepare

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Works:
    """What answers calls.

    Attributes:
        succession: one assembly after another; its door takes the calls.
        state: what replicas share.
        quotas: counts what callers use.
        ledger: keeps the budgets.
        alerting: tells people.
        engines_seen: what this process knows of engines.
        engines_run: those that this process runs; None where another one does.
        announce: told in plain words what takes long.
    """

    succession: Succession
    state: State
    quotas: SharedQuotas
    ledger: BudgetLedger
    alerting: Alerting
    engines_seen: EnginesSeen
    engines_run: Engines | None
    announce: Announce

    @property
    def assembly(self) -> Assembly:
        """What answers calls now."""
        return self.succession.current

    async def prepare(self, config: Config) -> None:
        """Build what ``config`` describes, beside what is in use; `follow` or `abandon` comes next.

        Raises:
            SetupError: a provider lacks something that only the machine can give.
        """
        await asyncio.to_thread(prepare, config, self.announce)
        if self.engines_run is not None:
            await self.engines_run.prepare(config)
        await self.engines_seen.prepare(config)
        await self.succession.prepare(config)

    def follow(self) -> None:
        """Go by the configuration that was prepared; calls that run stay with the one before."""
        self.succession.follow()
        now = self.assembly
        # First whoever makes calls, then who runs the engines: one that goes is asked no more by new calls.
        self.engines_seen.follow(now.engines.values())
        if self.engines_run is not None:
            self.engines_run.follow(now.config)
        self.alerting.follow(now.config.alerts)

    async def abandon(self) -> None:
        """Stay with what is in use."""
        await self.succession.abandon()

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        """Do what goes on beside the calls, as long as the context lasts."""
        now = self.assembly
        async with AsyncExitStack() as stack:
            for work, name in ((self.state.run(), "shared state"), *now.duties()):
                await stack.enter_async_context(background(work, name))
            stack.push_async_callback(self.alerting.close)
            self.alerting.follow(now.config.alerts)
            yield


@asynccontextmanager
async def works(
    config: Config,
    state: State,
    observer: Observer,
    *,
    copies: Observer,
    announce: Announce,
    changed: Callable[[], None] = lambda: None,
    engines: Path | None = None,
    impatient: asyncio.Event | None = None,
) -> AsyncIterator[Works]:
    """Give the works of ``config``; when this is left nothing of them is left.

    Args:
        config: valid in itself.
        state: connected already.
        observer: sees every call.
        copies: sees the copies of calls that shadows are sent.
        announce: told in plain words what takes long.
        changed: called whenever the health of a target may have changed.
        engines: the folder where another process runs the engines; None: this one does.
        impatient: once it is set at the end, no engine's grace is waited for.

    Raises:
        SetupError: a provider lacks something that only the machine can give.
    """
    await asyncio.to_thread(prepare, config, announce)
    async with AsyncExitStack() as stack:
        run: Engines | None = None
        if engines is None:
            leaving = impatient or asyncio.Event()
            run = await stack.enter_async_context(engines_running(config, announce, leaving))
            engines = run.folder
        thresholds = Thresholds()
        stack.push_async_callback(thresholds.close)
        ledger = await stack.enter_async_context(budgets_kept(config, state, thresholds.heard))
        quotas = SharedQuotas(state, 1 if state.distributed else config.server.workers)
        stack.push_async_callback(quotas.close)
        make = _maker(state, observer, copies, quotas, ledger, changed=changed, engines=engines)
        succession = Succession(make, config)
        stack.push_async_callback(succession.close)
        seen = EnginesSeen(engines)
        stack.push_async_callback(seen.close)
        await seen.begin(succession.current.engines.values())
        alerting = Alerting(lambda: succession.current.destinations, state.shared, thresholds)
        yield Works(succession, state, quotas, ledger, alerting, seen, run, announce)


def _maker(
    state: State,
    observer: Observer,
    copies: Observer,
    quotas: SharedQuotas,
    ledger: BudgetLedger,
    *,
    changed: Callable[[], None],
    engines: Path,
) -> Make:
    clock = asyncio.get_running_loop().time
    shared = state.shared if state.distributed else None

    def make(config: Config, before: Assembly | None) -> Assembly:
        return assemble(
            config,
            observer,
            clock,
            changed=changed,
            engines=engines,
            shared=shared,
            copies=copies,
            quotas=quotas,
            ledger=ledger,
            before=before,
        )

    return make
