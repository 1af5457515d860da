"""All engines of a configuration, as long as a context lasts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from router_server.config.secrets import secrets_of
from router_server.config.tree import Config
from router_server.core.engine_view import EngineView
from router_server.engines.desk import Desk
from router_server.engines.link import linked
from router_server.engines.supervisor import Supervisor, environment_without
from router_server.engines.wanted import engines_of, private_folder

_DESK: Final = "desk"


@asynccontextmanager
async def engines_running(
    config: Config, announce: Callable[[str], None], impatient: asyncio.Event
) -> AsyncIterator[Path | None]:
    """Run every engine that ``config`` wants; give the folder of their sockets, or None where it wants none.

    When this is left, no process of any engine is left.

    Args:
        config: its secrets are not handed down in variables, but for those that an engine is given.
        announce: told of starts in plain words.
        impatient: once it is set at the end, no engine's grace is waited for.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(private_folder())
        specs = engines_of(config, folder)
        if not specs:
            yield None
            return
        environment = environment_without(os.environ, secrets_of(config))
        engines = {name: Supervisor(name, spec, environment, announce) for name, spec in specs.items()}
        desk = Desk(engines)
        await desk.listen(folder / _DESK)
        stack.push_async_callback(desk.close)
        try:
            for engine in engines.values():
                engine.begin()
            yield folder
        finally:
            await _stopped(engines.values(), impatient)


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
async def engines_seen(views: Mapping[str, EngineView], folder: Path | None) -> AsyncIterator[None]:
    """Keep ``views`` of the engines in ``folder`` true as long as the context lasts."""
    if folder is None:
        yield
        return
    async with linked(views, folder / _DESK):
        yield
