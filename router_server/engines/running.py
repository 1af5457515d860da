"""All engines that the configuration of the moment wants, and the desk where callers hear of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from router_server.config.secrets import secrets_of
from router_server.config.tree import Config
from router_server.core.engine_view import EngineView
from router_server.engines.desk import Desk
from router_server.engines.link import Link
from router_server.engines.supervisor import Supervisor, environment_without
from router_server.engines.wanted import Wanted, engines_of, private_folder

_DESK: Final = "desk"

_log = logging.getLogger(__name__)


class Engines:
    """Runs engines until stopped.

    Args:
        folder: for their sockets; nobody else may enter it.
        announce: told of starts in plain words.

    Attributes:
        folder: as given.
    """

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        self.folder = folder
        self._announce = announce
        self._desk = Desk()
        self._running: dict[str, Supervisor] = {}
        self._leaving: dict[asyncio.Task[None], Supervisor] = {}
        self._changing: asyncio.Task[None] | None = None

    async def prepare(self, config: Config) -> None:
        """Make ready for what `follow` may bring: nothing that runs changes.

        Raises:
            OSError: the desk's socket cannot be had.
        """
        if not self._desk.is_open and engines_of(config, self.folder):
            await self._desk.listen(self.folder / _DESK)

    def follow(self, config: Config) -> None:
        """Run the engines that ``config`` wants, and no others. Takes no time.

        An engine that is wanted no more ends with the last call in it. Those that come begin once it has:
        they may need what it holds of the machine.

        Args:
            config: its secrets are not handed down in variables, but for those that an engine is given.
        """
        wanted = engines_of(config, self.folder)
        for key in self._running.keys() - wanted.keys():
            self._retire(self._running.pop(key))
        for key in self._running.keys() & wanted.keys():
            self._running[key].change(wanted[key].spec)
        fresh = {key: one for key, one in wanted.items() if key not in self._running}
        if self._changing is not None:
            self._changing.cancel()
        environment = environment_without(os.environ, secrets_of(config))
        if not self._leaving:
            self._begin(fresh, environment)
        elif fresh:
            self._changing = asyncio.create_task(self._begin_later(fresh, environment), name="engines")

    async def stop(self, impatient: asyncio.Event) -> None:
        """End all; once ``impatient`` is set no engine's grace is waited for."""
        if self._changing is not None:
            self._changing.cancel()
            await asyncio.wait({self._changing})
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        if leaving:
            await asyncio.wait(leaving)
        await _stopped([*self._running.values(), *leaving.values()], impatient)
        await self._desk.close()

    def _begin(self, wanted: dict[str, Wanted], environment: dict[str, str]) -> None:
        for key, one in wanted.items():
            engine = Supervisor(one.provider, one.spec, environment, self._announce)
            self._running[key] = engine
            self._desk.add(engine)
            engine.begin()

    async def _begin_later(self, wanted: dict[str, Wanted], environment: dict[str, str]) -> None:
        while self._leaving:
            await asyncio.wait(self._leaving)
        self._begin(wanted, environment)

    def _retire(self, engine: Supervisor) -> None:
        self._announce(f"{engine.name}: wanted no more; it ends with the last call in it")
        task = asyncio.create_task(engine.retire(), name=f"end of engine {engine.name}")
        self._leaving[task] = engine
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        engine = self._leaving.pop(task)
        if not task.cancelled():
            self._desk.remove(engine)
            if (error := task.exception()) is not None:
                _log.critical("The engine %s could not be ended.", engine.name, exc_info=error)


async def _stopped(engines: Collection[Supervisor], impatient: asyncio.Event) -> None:
    stopping = asyncio.gather(*(engine.stop() for engine in engines))
    hurry = asyncio.create_task(impatient.wait())
    either: set[asyncio.Future[Any]] = {stopping, hurry}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            for engine in engines:
                engine.kill()
        await stopping
    finally:
        hurry.cancel()


@asynccontextmanager
async def engines_running(
    config: Config, announce: Callable[[str], None], impatient: asyncio.Event
) -> AsyncIterator[Engines]:
    """Run the engines that ``config`` wants, and later those that `Engines.follow` is told of.

    When this is left, no process of any engine is left.

    Args:
        config: see `Engines.follow`.
        announce: told of starts in plain words.
        impatient: once it is set at the end, no engine's grace is waited for.
    """
    with private_folder() as folder:
        engines = Engines(folder, announce)
        await engines.prepare(config)
        try:
            engines.follow(config)
            yield engines
        finally:
            await engines.stop(impatient)


class EnginesSeen:
    """What one process that makes calls knows of the engines in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = Link(folder / _DESK)

    async def begin(self, views: Collection[EngineView]) -> None:
        """Keep ``views`` true; each has been told once when this returns."""
        self._link.follow(views)
        if views:
            await self._link.connect(len(views))

    async def prepare(self, config: Config) -> None:
        """Make ready for the engines that ``config`` wants."""
        if engines_of(config, self._folder):
            await self._link.connect(0)

    def follow(self, views: Collection[EngineView]) -> None:
        """Keep ``views`` true from now on. Takes no time."""
        self._link.follow(views)

    async def close(self) -> None:
        """Hear of no engine any more."""
        await self._link.close()
