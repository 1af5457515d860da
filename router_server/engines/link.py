"""The end of a process that makes calls: keeps its views of the engines true, and reports to the `desk`.

Refuses to decide anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from router_server.core.engine import EngineState, EngineStatus
from router_server.core.engine_view import EngineView

_REPORT: Final = 0.5
"""Seconds between two reports, where there is news: idle and stuck times are measured in minutes."""

_log = logging.getLogger(__name__)


class Link:
    """Begins with no view.

    Args:
        path: the desk's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._views: dict[str, list[EngineView]] = {}
        """Of each engine: those that are not in service any more may still have calls in it."""
        self._in_service: frozenset[EngineView] = frozenset()
        self._known: dict[str, EngineStatus] = {}
        self._said: dict[str, tuple[int, int, int]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, count: int) -> None:
        """Join the desk, unless that is done; return once ``count`` engines have been told of.

        Raises:
            OSError: nobody is there.
        """
        if self._writer is not None:
            return
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        for _ in range(count):
            self.hear(await reader.readline())
        self._tasks = [asyncio.create_task(self._listen(reader)), asyncio.create_task(self._report())]

    def follow(self, views: Iterable[EngineView]) -> None:
        """Keep these views true from now on; and those before them, until their engines are gone."""
        self._in_service = frozenset(views)
        for view in self._in_service:
            of_engine = self._views.setdefault(view.key, [])
            if view in of_engine:
                continue
            of_engine.append(view)
            view.ask = partial(self._say, view.key, wanted=True)
            if view.key in self._known:
                view.told(self._known[view.key])
                self._say(view.key)

    def hear(self, line: bytes) -> None:
        """Pass on what the desk says, and answer it."""
        said = json.loads(line)
        key = said.pop("engine")
        if said.pop("gone", False):
            self._forget(key)
            return
        self._known[key] = status = EngineStatus(**{**said, "state": EngineState(said["state"])})
        for view in self._views.get(key, ()):
            view.told(status)
        self._say(key)

    async def close(self) -> None:
        """Leave the desk."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._writer is not None:
            self._writer.close()

    def _forget(self, key: str) -> None:
        self._known.pop(key, None)
        self._said.pop(key, None)
        # One that is in service waits for the engine to come again.
        self._views[key] = [view for view in self._views.get(key, ()) if view in self._in_service]
        for view in self._views[key]:
            view.forget()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hear everything until the desk closes; then no engine is to be used any more."""
        async for line in reader:
            self.hear(line)
        _log.warning("Whoever runs the engines is gone; they are not used any more.")
        for views in self._views.values():
            for view in views:
                view.told(EngineStatus(EngineState.FAILED))

    async def _report(self) -> None:
        """Say what has changed, from time to time."""
        while True:
            await asyncio.sleep(_REPORT)
            for key in self._known:
                if self._said.get(key) != self._facts(key):
                    self._say(key)

    def _say(self, key: str, *, wanted: bool = False) -> None:
        if self._writer is None or key not in self._known:
            return
        facts = self._said[key] = self._facts(key)
        version, calls, progress = facts
        report: dict[str, Any] = {
            "engine": key, "version": version, "calls": calls, "progress": progress, "wanted": wanted
        }  # fmt: skip
        self._writer.write(json.dumps(report).encode() + b"\n")

    def _facts(self, key: str) -> tuple[int, int, int]:
        views = self._views.get(key, ())
        calls, progress = sum(view.calls for view in views), sum(view.progress for view in views)
        return self._known[key].version, calls, progress
