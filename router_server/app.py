"""The composition root: the only file that knows every part. Start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from router_server.alerting import alerts_sent
from router_server.assembled import Assembly
from router_server.assembly import assemble, prepare
from router_server.config.route_words import route_words
from router_server.config.secrets import secrets_of
from router_server.config.tree import Config, ServerConfig
from router_server.core.alerts import Alerts
from router_server.core.engine import EngineState
from router_server.core.funds import Ledger
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.principal import Authenticator
from router_server.core.provider import Capability
from router_server.engines.running import engines_running, engines_seen
from router_server.http.server import Exposition, HttpServer, HttpStartError
from router_server.providers import SetupError
from router_server.rpc.binding import BindError, TlsError
from router_server.rpc.current import CallHolder
from router_server.rpc.health import HealthBoard
from router_server.rpc.server import RpcServer
from router_server.rpc.settings import ServerSettings, Tls
from router_server.spending.ledger import BudgetLedger
from router_server.spending.opening import budgets_kept
from router_server.spending.thresholds import Thresholds
from router_server.state.opening import State, open_state
from router_server.state.windows import SharedQuotas
from router_server.telemetry import Telemetry, TelemetrySettings, build, register_secret
from router_server.workers import Task

Announce = Callable[[str], None]

_log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where the client looks unless it is told otherwise."""

_HEALTH_REFRESH = 1.0
"""Seconds in which a breaker that opens or closes by the clock alone shows in health."""


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves. ``http_port`` is 0 where no HTTP is served; ``alerts`` None: nobody is told."""

    assembly: Assembly
    rpc: RpcServer
    health: HealthBoard
    state: State
    quotas: SharedQuotas
    http_port: int = 0
    alerts: Alerts | None = None
    ledger: BudgetLedger | None = None


async def serve(config: Config, *, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    Args:
        config: what to serve.
        announce: told in plain words what is served, and where.

    Raises:
        StartError: something that the configuration asks for cannot be had.
    """
    with stop_signals() as told_to_stop:
        async with running(config, announce=announce) as server:
            announce(served(config, server.rpc.port, server.http_port))
            await drained(server, config, told_to_stop, announce)
    announce("Stopped.")


async def drained(server: Running, config: Config, told_to_stop: asyncio.Event, announce: Announce) -> None:
    """Wait until told to stop, then drain; being told again ends at once."""
    await told_to_stop.wait()
    told_to_stop.clear()
    announce("Draining: no new calls are wanted, running ones go on. A second signal ends at once.")
    draining = asyncio.create_task(server.rpc.drain(config.server.drain_delay, config.server.drain_grace))
    impatient = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    impatient.cancel()
    await asyncio.wait({draining, impatient})


def served(config: Config, port: int, http_port: int) -> str:
    """Return in plain words what is served, where, and what to try next."""
    host, _, asked = config.server.listen.rpartition(":")
    address = config.server.listen if not asked.isdigit() else f"{host}:{port}"
    lines = [f"Serving on {address}:"]
    for name, route in config.routes.items():
        lines.append(f"  {name}: {route_words(route, lambda target: _words(config, target))}")
    if http_port:
        http_host = (config.server.http_listen or "").rpartition(":")[0]
        lines.append(f"Metrics on http://{http_host}:{http_port}/metrics")
    lines.append(f"Try: {_next_command(config, address)}")
    return "\n".join(lines)


def _words(config: Config, target: str) -> str:
    settings = config.targets[target]
    return f"{settings.model or 'the served model'} ({settings.provider})"


def _next_command(config: Config, address: str) -> str:
    command = Path(sys.argv[0]).with_name("modelrouter")
    try:
        shown = command.resolve().relative_to(Path.cwd())
    except ValueError:
        shown = Path(command.name)
    name = next(iter(config.routes))
    chats = Capability.CHAT in config.capabilities(config.routes[name].order[0])
    where = "" if address == DEFAULT_ADDRESS else f" --target {address}"
    model = "" if name == "chat" else f" --model {name}"
    question = 'chat "What is the capital of France?"' if chats else 'embed "a cat" "a kitten"'
    return f"{shown} {question}{model}{where}"


@asynccontextmanager
async def running(
    config: Config, *, announce: Announce, worker: Task | None = None
) -> AsyncIterator[Running]:
    """Serve while the context lasts; what runs at its end is cancelled.

    Args:
        config: what to serve.
        announce: told what takes long before anything is served.
        worker: set in a worker: the port is shared with others, and HTTP is for the parent alone.

    Raises:
        StartError: see `serve`.
    """
    for secret in secrets_of(config):
        register_secret(secret)
    await _prepare(config, announce)
    async with AsyncExitStack() as stack:
        changed = asyncio.Event()
        state = open_state(config.redis.get_secret_value() if config.redis else None, changed.set)
        assembled: list[Assembly] = []
        telemetry = build(
            _telemetry_settings(config),
            lambda: assembled[0].snapshot() if assembled else (),
            state.snapshot,
            lambda: assembled[0].copies() if assembled else (),
        )
        stack.push_async_callback(telemetry.shutdown)
        stack.push_async_callback(state.close)
        await state.connect()
        engines = (
            worker.engines if worker else await stack.enter_async_context(engines_running(config, announce))
        )
        thresholds = Thresholds(config.alerts.budget if config.alerts else ())
        stack.push_async_callback(thresholds.close)
        ledger = await stack.enter_async_context(budgets_kept(config, state, thresholds.heard))
        quotas = SharedQuotas(state, 1 if state.distributed else config.server.workers)
        stack.push_async_callback(quotas.close)
        assembly = _assemble(
            config, telemetry, state, quotas, changed=changed, engines=engines, ledger=ledger
        )
        auth = await _authentication(config, state, stack)
        assembled.append(assembly)
        assembly.begin()
        stack.push_async_callback(assembly.close)
        await stack.enter_async_context(engines_seen(assembly.engines, engines))
        health = HealthBoard()
        observer = fan_out_rpc(telemetry.rpc_observers)
        settings = _server_settings(config.server, reuse_port=worker is not None)
        rpc = RpcServer(settings, assembly.router, health, observer, authenticator=auth)
        http_port = await _start_http(config, telemetry, health, stack, worker)
        await _start(rpc)
        stack.push_async_callback(rpc.stop)
        await stack.enter_async_context(_background(state.run(), "shared state"))
        await stack.enter_async_context(_background(assembly.checks.run(), "active checks"))
        await stack.enter_async_context(_background(assembly.loads.run(), "engine loads"))
        alerts = await stack.enter_async_context(
            alerts_sent(config.alerts, lambda: assembly.destinations, state.shared)
        )
        thresholds.alerts = alerts
        await stack.enter_async_context(_background(_show_health(assembly, state, health, changed), "health"))
        yield Running(assembly, rpc, health, state, quotas, http_port, alerts, ledger)


async def _authentication(config: Config, state: State, stack: AsyncExitStack) -> Authenticator | None:
    if config.auth is None:
        return None
    from router_server.auth.opening import Authentication  # noqa: PLC0415 - PyJWT takes 0.1 s to load

    authentication = Authentication(config.auth, state.shared)
    await authentication.prepare()
    await stack.enter_async_context(_background(authentication.run(), "authentication"))
    return authentication.authenticator


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


def _assemble(
    config: Config,
    telemetry: Telemetry,
    state: State,
    quotas: SharedQuotas,
    *,
    changed: asyncio.Event,
    engines: Path | None,
    ledger: Ledger | None,
) -> Assembly:
    observer = fan_out((CallHolder(), *telemetry.observers))
    clock = asyncio.get_running_loop().time
    shared = state.shared if state.distributed else None
    try:
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
        )
    except SetupError as error:
        raise StartError(str(error)) from None


async def _start(rpc: RpcServer) -> None:
    try:
        await rpc.start()
    except (BindError, TlsError) as error:
        raise StartError(str(error)) from None


def _server_settings(server: ServerConfig, *, reuse_port: bool) -> ServerSettings:
    tls = server.tls
    return ServerSettings(
        listen=server.listen,
        health_listen=server.health_listen,
        tls=None if tls is None else Tls(tls.cert, tls.key, tls.client_ca),
        reflection=server.reflection,
        reuse_port=reuse_port,
        max_receive_bytes=server.max_receive_bytes,
        max_send_bytes=server.max_send_bytes,
        longest_stream=server.deadline.stream,
    )


def _telemetry_settings(config: Config) -> TelemetrySettings:
    telemetry = config.telemetry
    return TelemetrySettings(
        service_name=telemetry.service_name,
        otlp_endpoint=telemetry.otlp_endpoint,
        sample_ratio=telemetry.sample_ratio,
        record_content=telemetry.record_content,
        log_format=telemetry.log.format,
        log_level=telemetry.log.level,
    )


async def _prepare(config: Config, announce: Announce) -> None:
    try:
        await asyncio.to_thread(prepare, config, announce)
    except SetupError as error:
        raise StartError(str(error)) from None


async def _show_health(assembly: Assembly, state: State, health: HealthBoard, changed: asyncio.Event) -> None:
    while True:
        changed.clear()
        health.set_ready(assembly.ready)
        if state.distributed:
            health.set("state", not state.degraded)
        for name, target in assembly.targets.items():
            health.set(f"target/{name}", target.serving)
        for name, destination in assembly.destinations.items():
            health.set(f"target/{name}", destination.serving)
        for name, engine in assembly.engines.items():
            _show_engine(health, name, engine.status.state)
        for route in assembly.routes:
            health.set(f"route/{route.name}", any(target.takes_calls for target in route.targets))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEALTH_REFRESH):
                await changed.wait()


def _show_engine(health: HealthBoard, name: str, state: EngineState) -> None:
    """Give the state a name of its own: health as gRPC defines it has no word for asleep."""
    for other in set(EngineState) - {state}:
        health.remove(f"engine/{name}/{other}")
    health.set(f"engine/{name}/{state}", True)


@asynccontextmanager
async def _background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_unexpected_end)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _log_unexpected_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("The task %s ended: the server goes on without it.", task.get_name(), exc_info=error)


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Give the event that SIGTERM and SIGINT set, as long as the context lasts."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
