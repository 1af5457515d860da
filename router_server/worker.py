"""One worker among several, as its parent starts it: ``python -m router_server.worker``.

Its task comes on standard input, which stays open: when it closes, the parent is gone and so goes this
process. Not a command for people.
"""

from __future__ import annotations

import asyncio
import os
import sys

from router_server.app import StartError, drained, running, stop_signals
from router_server.loop import new_loop
from router_server.workers import READY, Task, read_task

_STDIN = 0


def main() -> int:
    """Serve until told to stop; return the exit code."""
    task = read_task(_STDIN)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(task))
    except StartError as error:
        sys.stderr.write(f"router-server: {error}\n")
        return 1
    return 0


async def _serve(task: Task) -> None:
    with stop_signals() as told_to_stop:
        loop = asyncio.get_running_loop()
        async with running(task.config, announce=_silent, worker=task) as server:
            os.write(sys.stdout.fileno(), READY)
            # Nothing more is ever said on it: readable means closed.
            loop.add_reader(_STDIN, told_to_stop.set)
            await drained(server, task.config, told_to_stop, _silent)
            loop.remove_reader(_STDIN)


def _silent(_line: str) -> None:
    """Say nothing: the parent speaks for all."""


if __name__ == "__main__":
    sys.exit(main())
