"""Configurations whose engines are `fake_engine`, and what these have noted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0
"""Seconds that anything may take on a busy machine."""


@dataclass
class FakeEngine:
    """One provider's engine, as its folder tells."""

    folder: Path

    def order(self, *words: str) -> None:
        """Say how it is to behave from now on."""
        (self.folder / "new").write_text(" ".join(words))
        (self.folder / "new").rename(self.folder / "orders")

    @property
    def lives(self) -> list[list[int]]:
        """The process ids of every start."""
        return [json.loads(line)["pids"] for line in self.noted("lives")]

    @property
    def calls(self) -> list[str]:
        """What it was asked."""
        return self.noted("calls")

    @property
    def naps(self) -> list[str]:
        """When it was told to sleep and to wake."""
        return self.noted("naps")

    @property
    def log(self) -> str:
        """What is kept of its output."""
        return "".join(path.read_text() for path in sorted((self.folder / "log").iterdir()))

    def noted(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def serve(self, model: str = "fake-model", *, env: str = "", **keys: str) -> str:
        """Return the value of ``serve`` for it, in YAML."""
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        given = {
            "model": model,
            "python": f"'{sys.executable}'",
            "module": "tests.engines.fake_engine",
            "env": f"{{FAKE_FOLDER: '{self.folder}', PYTHONPATH: '{path}'{env}}}",
            "start_timeout": "20s",
            "stop_grace": "300ms",
            "health_check": "{interval: 100ms, timeout: 5s, failures: 2}",
            "backoff": "{first: 50ms, max: 200ms}",
            "log": f"{{folder: '{self.folder / 'log'}'}}",
        } | keys
        return "{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"


def fake(folder: Path, name: str = "engine") -> FakeEngine:
    """Return a fake engine with a folder of its own."""
    (folder / name).mkdir()
    return FakeEngine(folder / name)


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - of another process there is no event
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Tell whether a process lives; one that nobody has buried yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
