"""The composition root: the only file that knows every part. Start, serve, drain, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from router_server.assembled import Assembly
from router_server.auth.current import CurrentCallers
from router_server.background import background
from router_server.config.secrets import secrets_of
from router_server.config.tree import Config
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.reloads import Reloads
from router_server.greeting import served
from router_server.http.server import Exposition, HttpServer, HttpStartError
from router_server.providers import SetupError
from router_server.reloading import Reloader, Source, watch
from router_server.rpc.binding import BindError
from router_server.rpc.certificates import TlsError
from router_server.rpc.current import CallHolder
from router_server.rpc.health import HealthBoard
from router_server.rpc.server import RpcServer
from router_server.settings import server_settings, telemetry_settings
from router_server.showing import show_health
from router_server.signals import hangup_signal, stop_signals
from router_server.state.opening import open_state
from router_server.telemetry import Telemetry, build, register_secret
from router_server.workers import Task
from router_server.works import Announce, Works, works


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves. ``http_port`` is 0 where no HTTP is served."""

    works: Works
    callers: CurrentCallers
    reloads: Reloads
    rpc: RpcServer
    health: HealthBoard
    telemetry: Telemetry
    http_port: int = 0

    @property
    def assembly(self) -> Assembly:
        """What answers calls now."""
        return self.works.assembly

    async def prepare(self, config: Config) -> None:
        """Build what ``config`` describes, beside what is in use; `follow` or `refuse` comes next.

        Raises:
            SetupError: a provider lacks something that only the machine can give.
        """
        _hide_secrets(config)
        await self.works.prepare(config)
        await self.callers.prepare(config.auth)

    def follow(self) -> None:
        """Go by the configuration that was prepared; calls that run stay with the one before."""
        self.works.follow()
        self.callers.follow()
        self.rpc.know_callers_by(self.callers.authenticator)
        log = self.assembly.config.telemetry.log
        self.telemetry.change_log(log.format, log.level)
        self.reloads.noted(ok=True)

    async def refuse(self) -> None:
        """Stay with what is in use."""
        await self.works.abandon()
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
    _hide_secrets(config)
    async with AsyncExitStack() as stack:
        changed = asyncio.Event()
        state = open_state(config.redis.get_secret_value() if config.redis else None, changed.set)
        reloads = Reloads()
        opened: list[Works] = []
        telemetry = build(
            telemetry_settings(config),
            lambda: opened[0].assembly.snapshot() if opened else (),
            state.snapshot,
            lambda: opened[0].assembly.copies() if opened else (),
            reloads,
            budgets=lambda: opened[0].ledger.uses() if opened else (),
            moves=lambda: opened[0].assembly.moves() if opened else (),
        )
        stack.push_async_callback(telemetry.shutdown)
        stack.push_async_callback(state.close)
        await state.connect()
        opening = works(
            config,
            state,
            fan_out((CallHolder(), *telemetry.observers)),
            copies=fan_out(telemetry.observers),
            announce=announce,
            changed=changed.set,
            engines=worker.engines if worker else None,
            impatient=impatient,
        )
        try:
            parts = await stack.enter_async_context(opening)
        except SetupError as error:
            raise StartError(str(error)) from None
        opened.append(parts)
        callers = CurrentCallers(state.shared)
        stack.push_async_callback(callers.close)
        await callers.prepare(config.auth)
        callers.follow()
        health = HealthBoard()
        observer = fan_out_rpc(telemetry.rpc_observers)
        settings = server_settings(config.server, reuse_port=worker is not None)
        door = parts.succession.door
        rpc = RpcServer(settings, door, health, observer, authenticator=callers.authenticator)
        http_port = await _start_http(config, telemetry, health, stack, worker)
        await _start(rpc)
        stack.push_async_callback(rpc.stop)
        await stack.enter_async_context(parts.tended())
        showing = show_health(lambda: parts.assembly, state, reloads, health, changed)
        await stack.enter_async_context(background(showing, "health"))
        yield Running(parts, callers, reloads, rpc, health, telemetry, http_port)


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


async def _start(rpc: RpcServer) -> None:
    try:
        await rpc.start()
    except (BindError, TlsError) as error:
        raise StartError(str(error)) from None


def _hide_secrets(config: Config) -> None:
    for secret in secrets_of(config):
        register_secret(secret)


@asynccontextmanager
async def reloaded(reloader: Reloader, hung_up: asyncio.Event) -> AsyncIterator[None]:
    """Reload when ``hung_up`` is set or the file has changed, while the context lasts."""
    every, path = reloader.config.server.watch_config, reloader.path
    async with AsyncExitStack() as stack:
        if path is not None and every is not None:
            await stack.enter_async_context(background(watch(path, every, hung_up.set), "configuration file"))
        await stack.enter_async_context(background(reloader.run(hung_up), "reload"))
        yield
