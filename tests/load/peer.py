"""Programs of a test that run in processes of their own and answer questions: a word in, a line of JSON out.

The first line is said unasked, once the program is ready. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass
class Peer:
    """The other process."""

    process: asyncio.subprocess.Process
    ready: Any
    """What it said first."""

    async def ask(self, word: str) -> Any:
        """Return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        return await self.hear()

    async def hear(self) -> Any:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the other process ended; its log is above"
        return json.loads(line)


@asynccontextmanager
async def peer(module: str, *arguments: str) -> AsyncIterator[Peer]:
    """Run ``module`` until the context ends; what it logs goes where the test's own log goes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        started = Peer(process, None)
        started.ready = await started.hear()
        yield started
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def answer_questions(ready: Any, answers: Mapping[str, Callable[[], Any]]) -> None:
    """Be the other process: answer until nobody asks any more."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    _say(ready)
    while word := (await lines.readline()).decode().strip():
        _say(answers[word]())


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
