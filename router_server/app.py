"""The composition root: the only file that knows every part. Start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from router_server.alerting import Alerting
from router_server.assembled import Assembly
from router_server.assembly import assemble, prepare
from router_server.auth.current import CurrentCallers
from router_server.background import background
from router_server.config.secrets import secrets_of
from router_server.config.tree import Config
from router_server.core.funds import Ledger
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.reloads import Reloads
from router_server.engines.running import engines_running, engines_seen
from router_server.greeting import served
from router_server.http.server import Exposition, HttpServer, HttpStartError
from router_server.providers import SetupError
from router_server.reloading import Reloader, Source, watch
from router_server.rpc.binding import BindError, TlsError
from router_server.rpc.current import CallHolder
from router_server.rpc.health import HealthBoard
from router_server.rpc.server import RpcServer
from router_server.settings import server_settings, telemetry_settings
from router_server.showing import show_health
from router_server.signals import hangup_signal, stop_signals
from router_server.spending.ledger import BudgetLedger
from router_server.spending.opening import budgets_kept
from router_server.spending.thresholds import Thresholds
from router_server.state.opening import State, open_state
from router_server.state.windows import SharedQuotas
from router_server.succession import Make, Succession
from router_server.telemetry import Telemetry, build, register_secret
from router_server.workers import Task

Announce = Callable[[str], None]

_log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves. ``http_port`` is 0 where no HTTP is served."""

    succession: Succession
    callers: CurrentCallers
    reloads: Reloads
    rpc: RpcServer
    health: HealthBoard
    state: State
    quotas: SharedQuotas
    alerting: Alerting
    telemetry: Telemetry
    ledger: BudgetLedger
    http_port: int = 0

    @property
    def assembly(self) -> Assembly:
        """What answers calls now."""
        return self.succession.current

    async def prepare(self, config: Config) -> None:
        """Build what ``config`` describes, beside what is in use; `follow` or `refuse` comes next.

        Raises:
            SetupError: a provider lacks something that only the machine can give.
        """
        await _prepare(config, _log.info)
        await self.succession.prepare(config)
        await self.callers.prepare(config.auth)

    def follow(self) -> None:
        """Go by the configuration that was prepared; calls that run stay with the one before."""
        self.succession.follow()
        self.callers.follow()
        self.rpc.know_callers_by(self.callers.authenticator)
        config = self.assembly.config
        self.alerting.follow(config.alerts)
        self.telemetry.change_log(config.telemetry.log.format, config.telemetry.log.level)
        self.reloads.noted(ok=True)

    async def refuse(self) -> None:
        """Stay with what is in use."""
        await self.succession.abandon()
        self.reloads.noted(ok=False)


async def serve(config: Config, *, announce: Announce, source: Source | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    Args:
        config: what to serve.
        announce: told in plain words what is served, and where.
        source: where ``config`` comes from, to be read again when SIGHUP says so; None: it never changes.

    Raises:
        StartError: something that the configuration asks for cannot be had.
    """
    with stop_signals() as told_to_stop, hangup_signal() as hung_up:
        async with running(config, announce=announce, impatient=told_to_stop) as server:
            announce(served(config, server.rpc.port, server.http_port))

            async def apply(wanted: Config) -> None:
                await server.prepare(wanted)
                server.follow()

            source = source or Source(lambda: config)
            async with reloaded(Reloader(source, config, apply, server.refuse), hung_up):
                await drained(server, told_to_stop, announce)
    announce("Stopped.")


async def drained(server: Running, told_to_stop: asyncio.Event, announce: Announce) -> None:
    """Wait until told to stop, then drain; being told again ends at once."""
    await told_to_stop.wait()
    told_to_stop.clear()
    announce("Draining: no new calls are wanted, running ones go on. A second signal ends at once.")
    times = server.assembly.config.server
    draining = asyncio.create_task(server.rpc.drain(times.drain_delay, times.drain_grace))
    impatient = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    impatient.cancel()
    await asyncio.wait({draining, impatient})


@asynccontextmanager
async def running(
    config: Config,
    *,
    announce: Announce,
    worker: Task | None = None,
    impatient: asyncio.Event | None = None,
) -> AsyncIterator[Running]:
    """Serve while the context lasts; what runs at its end is cancelled.

    Args:
        config: what to serve.
        announce: told what takes long before anything is served.
        worker: set in a worker: the port is shared with others, and HTTP is for the parent alone.
        impatient: once it is set at the end, nothing is waited for that can be killed.

    Raises:
        StartError: see `serve`.
    """
    try:
        await _prepare(config, announce)
    except SetupError as error:
        raise StartError(str(error)) from None
    async with AsyncExitStack() as stack:
        changed = asyncio.Event()
        state = open_state(config.redis.get_secret_value() if config.redis else None, changed.set)
        reloads = Reloads()
        line: list[Succession] = []
        kept: list[BudgetLedger] = []
        telemetry = build(
            telemetry_settings(config),
            lambda: line[0].current.snapshot() if line else (),
            state.snapshot,
            lambda: line[0].current.copies() if line else (),
            reloads,
            budgets=lambda: kept[0].uses() if kept else (),
            moves=lambda: line[0].current.moves() if line else (),
        )
        stack.push_async_callback(telemetry.shutdown)
        stack.push_async_callback(state.close)
        await state.connect()
        engines = (
            worker.engines
            if worker
            else await stack.enter_async_context(
                engines_running(config, announce, impatient or asyncio.Event())
            )
        )
        thresholds = Thresholds()
        stack.push_async_callback(thresholds.close)
        ledger = await stack.enter_async_context(budgets_kept(config, state, thresholds.heard))
        kept.append(ledger)
        quotas = SharedQuotas(state, 1 if state.distributed else config.server.workers)
        stack.push_async_callback(quotas.close)
        make = _maker(telemetry, state, quotas, changed=changed, engines=engines, ledger=ledger)
        try:
            succession = Succession(make, config)
        except SetupError as error:
            raise StartError(str(error)) from None
        line.append(succession)
        stack.push_async_callback(succession.close)
        callers = CurrentCallers(state.shared)
        stack.push_async_callback(callers.close)
        await callers.prepare(config.auth)
        callers.follow()
        first = succession.current
        await stack.enter_async_context(engines_seen(first.engines, engines))
        health = HealthBoard()
        observer = fan_out_rpc(telemetry.rpc_observers)
        settings = server_settings(config.server, reuse_port=worker is not None)
        rpc = RpcServer(settings, succession.door, health, observer, authenticator=callers.authenticator)
        http_port = await _start_http(config, telemetry, health, stack, worker)
        await _start(rpc)
        stack.push_async_callback(rpc.stop)
        for work, name in ((state.run(), "shared state"), *first.duties()):
            await stack.enter_async_context(background(work, name))
        alerting = Alerting(lambda: succession.current.destinations, state.shared, thresholds)
        stack.push_async_callback(alerting.close)
        alerting.follow(config.alerts)
        showing = show_health(lambda: succession.current, state, reloads, health, changed)
        await stack.enter_async_context(background(showing, "health"))
        yield Running(
            succession,
            callers,
            reloads,
            rpc,
            health,
            state,
            quotas,
            alerting,
            telemetry,
            ledger,
            http_port,
        )


async def _start_http(
    config: Config, telemetry: Telemetry, health: HealthBoard, stack: AsyncExitStack, worker: Task | None
) -> int:
    async def metrics(accept: str) -> Exposition:
        return await asyncio.to_thread(telemetry.render, accept)

    http = HttpServer(metrics, lambda: health.ready)
    stack.push_async_callback(http.close)
    if worker is not None:
        await http.listen_on_socket(worker.metrics_socket)
        return 0
    if config.server.http_listen is None:
        return 0
    return await listen_http(http, config.server.http_listen)


async def listen_http(http: HttpServer, address: str) -> int:
    """Serve ``http`` on ``address`` and return the port.

    Raises:
        StartError: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        return await http.listen(host.strip("[]"), int(port))
    except HttpStartError as error:
        raise StartError(str(error)) from None


def _maker(
    telemetry: Telemetry,
    state: State,
    quotas: SharedQuotas,
    *,
    changed: asyncio.Event,
    engines: Path | None,
    ledger: Ledger | None,
) -> Make:
    observer = fan_out((CallHolder(), *telemetry.observers))
    clock = asyncio.get_running_loop().time
    shared = state.shared if state.distributed else None

    def make(config: Config, before: Assembly | None) -> Assembly:
        return assemble(
            config,
            observer,
            clock,
            changed=changed.set,
            engines=engines,
            shared=shared,
            copies=fan_out(telemetry.observers),
            quotas=quotas,
            ledger=ledger,
            before=before,
        )

    return make


async def _start(rpc: RpcServer) -> None:
    try:
        await rpc.start()
    except (BindError, TlsError) as error:
        raise StartError(str(error)) from None


async def _prepare(config: Config, announce: Announce) -> None:
    for secret in secrets_of(config):
        register_secret(secret)
    await asyncio.to_thread(prepare, config, announce)


@asynccontextmanager
async def reloaded(reloader: Reloader, hung_up: asyncio.Event) -> AsyncIterator[None]:
    """Reload when ``hung_up`` is set or the file has changed, while the context lasts."""
    every, path = reloader.config.server.watch_config, reloader.path
    async with AsyncExitStack() as stack:
        if path is not None and every is not None:
            await stack.enter_async_context(background(watch(path, every, hung_up.set), "configuration file"))
        await stack.enter_async_context(background(reloader.run(hung_up), "reload"))
        yield
