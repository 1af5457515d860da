"""One process of an engine, inside its keeper.

Starting, ending, waiting. Refuses to know whether the engine is well, and when it is to end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from router_server.core.engine import EngineSpec
from router_server.engines import keeper
from router_server.engines.log import EngineLog

_KEEPER: Final = Path(keeper.__file__)
_LAST_WORDS: Final = 2.0
"""Seconds that the log's thread has to read what is left in the pipe."""


class EngineProcess:
    """A keeper, and in it an engine with all that it starts."""

    def __init__(self, keeper_process: asyncio.subprocess.Process, all_read: asyncio.Event) -> None:
        self._keeper = keeper_process
        self._all_read = all_read

    def end(self) -> None:
        """Ask it to end; it has the policy's grace."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()

    def kill(self) -> None:
        """End it now, whatever grace it has left."""
        with suppress(ProcessLookupError):
            self._keeper.send_signal(signal.SIGINT)

    async def ended(self) -> str:
        """Wait until no process of it is left; return how it ended, in words."""
        code = await self._keeper.wait()
        if code < 0:
            _kill_session(self._keeper.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._all_read.wait()
        return f"its keeper was killed by signal {-code}" if code < 0 else _words(code)


async def start(spec: EngineSpec, log: EngineLog, environment: Mapping[str, str]) -> EngineProcess:
    """Start an engine; what it prints goes to ``log``.

    Raises:
        OSError: not even the keeper could be started.
    """
    Path(spec.socket).unlink(missing_ok=True)  # noqa: ASYNC240 - in a folder of our own, in memory mostly
    log.begin()
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_KEEPER), str(spec.policy.stop_grace), *spec.command),
            stdin=asyncio.subprocess.PIPE,
            stdout=writing,
            stderr=writing,
            env={**{key: text for key, text in environment.items() if key not in spec.without}, **spec.env},
            # Ctrl-C is for the router, which ends the engine after the calls in it.
            start_new_session=True,
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return EngineProcess(process, log.follow(reading))


def _words(code: int) -> str:
    if code > 128:  # noqa: PLR2004 - a shell's way to tell of signals
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(code - 128).name}"
    return f"it ended with exit code {code}"


def _kill_session(leader: int) -> None:
    """Kill what a keeper that was itself killed leaves: all of its session that the kernel still knows."""
    with suppress(FileNotFoundError):
        for entry in filter(lambda entry: entry.name.isdigit(), Path("/proc").iterdir()):
            with suppress(OSError):
                # The name, in brackets, may hold anything; behind it: state, parent, group, session.
                if int((entry / "stat").read_bytes().rpartition(b")")[2].split()[3]) == leader:
                    os.kill(int(entry.name), signal.SIGKILL)
