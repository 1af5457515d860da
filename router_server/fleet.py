"""The parent of several workers: starts them, speaks for them, and ends with them.

It answers no call itself. If a worker ends by itself the others are told to stop too: whoever watches this
process starts all of them again, which is better than serving with less than was asked for, unseen.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from router_server.app import StartError, listen_http, reloaded
from router_server.config import Config
from router_server.config.secrets import secrets_of
from router_server.engines.running import engines_running
from router_server.greeting import served
from router_server.http.gathering import WorkerMetrics
from router_server.http.server import HttpServer
from router_server.orders import Step
from router_server.providers import SetupError
from router_server.reloading import Reloader, Source
from router_server.signals import hangup_signal, stop_signals
from router_server.surroundings import prepare
from router_server.telemetry import register_secret
from router_server.telemetry.logs import configure
from router_server.workers import Task, WorkerError, Workers, divided, reserved, started
from router_server.works import Announce

_log = logging.getLogger(__name__)


async def serve(config: Config, *, announce: Announce, source: Source | None = None) -> None:
    """Serve with ``server.workers`` processes until SIGTERM or SIGINT; a second signal ends at once.

    Args:
        config: what to serve.
        announce: told in plain words what is served, and where.
        source: where ``config`` comes from, to be read again when SIGHUP says so; None: it never changes.

    Raises:
        StartError: something that the configuration asks for cannot be had, or a worker ended by itself.
    """
    with stop_signals() as told_to_stop, hangup_signal() as hung_up:
        try:
            await _serve(config, source or Source(lambda: config), announce, told_to_stop, hung_up)
        except (WorkerError, OSError) as error:
            raise StartError(str(error)) from None
    announce("Stopped.")


async def _serve(
    config: Config,
    source: Source,
    announce: Announce,
    told_to_stop: asyncio.Event,
    hung_up: asyncio.Event,
) -> None:
    count = config.server.workers
    async with AsyncExitStack() as stack:
        logs = configure(config.telemetry.log.format, config.telemetry.log.level)
        stack.callback(logs.close)
        for secret in secrets_of(config):
            register_secret(secret)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelrouter-")))
        address = stack.enter_context(reserved(config.server.listen))
        sockets = [folder / f"worker-{number}.sock" for number in range(count)]
        engines = await stack.enter_async_context(engines_running(config, announce, told_to_stop))
        shares = _shares(config, address)
        tasks = [Task(share, socket, engines.folder) for share, socket in zip(shares, sockets, strict=True)]
        workers = await stack.enter_async_context(started(tasks))
        http_port = await _start_http(config, sockets, workers, stack)
        announce(served(config, int(address.rpartition(":")[2]), http_port))
        announce(f"{count} workers; each has 1/{count} of every concurrency limit and queue.")

        async def apply(wanted: Config) -> None:
            for secret in secrets_of(wanted):
                register_secret(secret)
            await asyncio.to_thread(prepare, wanted, announce)
            await engines.prepare(wanted)
            await workers.give(_shares(wanted, address))
            await workers.give([Step.FOLLOW] * count)
            engines.follow(wanted)
            logs.change(wanted.telemetry.log.format, wanted.telemetry.log.level)

        async def refuse() -> None:
            with suppress(SetupError):  # one has ended, which is told elsewhere
                await workers.give([Step.REFUSE] * count)

        async with reloaded(Reloader(source, config, apply, refuse), hung_up):
            await _until_stopped(workers, told_to_stop, announce)


def _shares(config: Config, address: str) -> list[Config]:
    """Return each worker's configuration."""
    share = divided(config)
    share = share.model_copy(update={"server": share.server.model_copy(update={"listen": address})})
    # Without shared state nobody could tell that another worker has said the same already.
    silent = share if share.redis else share.model_copy(update={"alerts": None})
    return [share, *[silent] * (config.server.workers - 1)]


async def _start_http(config: Config, sockets: list[Path], workers: Workers, stack: AsyncExitStack) -> int:
    if config.server.http_listen is None:
        return 0
    http = HttpServer(WorkerMetrics(sockets).gather, lambda: not workers.told_to_stop)
    stack.push_async_callback(http.close)
    return await listen_http(http, config.server.http_listen)


async def _until_stopped(workers: Workers, told_to_stop: asyncio.Event, announce: Announce) -> None:
    told = asyncio.create_task(told_to_stop.wait())
    ended = asyncio.create_task(workers.first_to_end())
    await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
    workers.stop()
    if ended.done():
        told.cancel()
        await workers.ended()
        raise WorkerError(f"a worker ended by itself with exit code {ended.result()}; all were stopped")
    announce("Draining: no new calls are wanted, running ones go on. A second signal ends at once.")
    told_to_stop.clear()
    impatient = asyncio.create_task(told_to_stop.wait())
    all_ended = asyncio.ensure_future(workers.ended())
    await asyncio.wait({impatient, all_ended}, return_when=asyncio.FIRST_COMPLETED)
    if not all_ended.done():
        workers.stop()
        await all_ended
    impatient.cancel()
    ended.cancel()
