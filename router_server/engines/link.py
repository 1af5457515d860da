"""The end of a process that makes calls: keeps its views of the engines true, and reports to the `desk`.

Refuses to decide anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from router_server.core.engine import EngineState, EngineStatus
from router_server.core.engine_view import EngineView

_REPORT: Final = 0.5
"""Seconds between two reports, where there is news: idle and stuck times are measured in minutes."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def linked(views: Mapping[str, EngineView], path: Path) -> AsyncIterator[None]:
    """Keep ``views`` true as long as the context lasts; every one has been told once when it is entered."""
    reader, writer = await asyncio.open_unix_connection(path)
    link = _Link(views, reader, writer)
    for _view in views:
        link.hear(await reader.readline())
    tasks = [asyncio.create_task(link.listen()), asyncio.create_task(link.report())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        writer.close()


class _Link:
    def __init__(
        self, views: Mapping[str, EngineView], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._views = views
        self._reader = reader
        self._writer = writer
        self._said: dict[str, tuple[int, int, int]] = {}
        for name, view in views.items():
            view.ask = partial(self._say, name, wanted=True)

    def hear(self, line: bytes) -> None:
        """Pass on what the desk says, and answer it."""
        said = json.loads(line)
        name = said.pop("engine")
        self._views[name].told(EngineStatus(**{**said, "state": EngineState(said["state"])}))
        self._say(name)

    async def listen(self) -> None:
        """Hear everything until the desk closes; then no engine is to be used any more."""
        async for line in self._reader:
            self.hear(line)
        _log.warning("Whoever runs the engines is gone; they are not used any more.")
        for view in self._views.values():
            view.told(EngineStatus(EngineState.FAILED))

    async def report(self) -> None:
        """Say what has changed, from time to time."""
        while True:
            await asyncio.sleep(_REPORT)
            for name, view in self._views.items():
                if self._said.get(name) != _facts(view):
                    self._say(name)

    def _say(self, name: str, *, wanted: bool = False) -> None:
        facts = self._said[name] = _facts(self._views[name])
        version, calls, progress = facts
        report = {
            "engine": name, "version": version, "calls": calls, "progress": progress, "wanted": wanted
        }  # fmt: skip
        self._writer.write(json.dumps(report).encode() + b"\n")


def _facts(view: EngineView) -> tuple[int, int, int]:
    return view.status.version, view.calls, view.progress
