"""One worker among several, as its parent starts it: ``python -m router_server.worker``.

Its task comes on standard input, which stays open: when it closes, the parent is gone and so goes this
process. Not a command for people.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing

from router_server.allocation import keep_large_buffers
from router_server.app import Running, StartError, drained, running
from router_server.config import Config
from router_server.loop import new_loop
from router_server.orders import Order, Step, answer, heard
from router_server.providers import SetupError
from router_server.signals import hangup_signal, stop_signals
from router_server.workers import READY, Task, read_task

_STDIN = 0


def main() -> int:
    """Serve until told to stop; return the exit code."""
    keep_large_buffers()
    task = read_task(_STDIN)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(task))
    except StartError as error:
        sys.stderr.write(f"router-server: {error}\n")
        return 1
    return 0


async def _serve(task: Task) -> None:
    # A hang-up is for the parent, which says what comes of it.
    with stop_signals() as told_to_stop, hangup_signal():
        async with running(task.config, announce=_silent, worker=task) as server:
            os.write(sys.stdout.fileno(), READY)
            obeying = asyncio.create_task(_obey(server, told_to_stop))
            await drained(server, told_to_stop, _silent)
            obeying.cancel()
            await asyncio.wait({obeying})


async def _obey(server: Running, told_to_stop: asyncio.Event) -> None:
    """Carry out what the parent says, until it is gone."""
    try:
        async with aclosing(heard(_STDIN)) as orders:
            async for order in orders:
                os.write(sys.stdout.fileno(), answer(await _carried_out(server, order)))
    finally:
        told_to_stop.set()


async def _carried_out(server: Running, order: Order) -> str:
    """Do it; return why that was not possible, empty where it was."""
    if order is Step.FOLLOW:
        server.follow()
    elif order is Step.REFUSE:
        await server.refuse()
    elif isinstance(order, Config):
        try:
            await server.prepare(order)
        except SetupError as error:
            return str(error)
    return ""


def _silent(_line: str) -> None:
    """Say nothing: the parent speaks for all."""


if __name__ == "__main__":
    sys.exit(main())
