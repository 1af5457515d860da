"""A server that tells how it is from inside: ``python -m tests.load.server CONFIG``.

Asked ``look``, it tells what it holds: tasks, permits, files, memory, breakers, buffers,
and answers of upstreams whose connections were neither closed nor given back.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from router_server.app import Running, running
from router_server.config.loading import load
from router_server.core.outbox import Outbox
from router_server.loop import new_loop
from tests.load.peer import answer_questions


def look(server: Running) -> dict[str, Any]:
    """Return what the server holds now."""
    process = psutil.Process()
    gc.collect()
    alive = gc.get_objects()
    outboxes = [one for one in alive if isinstance(one, Outbox)]
    answers = [one for one in alive if isinstance(one, aiohttp.ClientResponse) and one.connection is not None]
    return {
        "tasks": len(asyncio.all_tasks()),
        "calls": server.rpc.inflight,
        "permits": {name: u.limiter.inflight for name, u in server.assembly.upstreams.items()},
        "queued": {name: u.limiter.queued for name, u in server.assembly.upstreams.items()},
        "breakers": {name: t.breaker.state.value for name, t in server.assembly.targets.items()},
        "serving": {name: t.serving for name, t in server.assembly.targets.items()},
        "unreturned": len(answers),
        "files": process.num_fds(),
        "rss": process.memory_info().rss,
        "outboxes": sorted(one.size for one in outboxes),
    }


async def main() -> None:
    """Serve until nobody asks any more."""
    config = load(Path(sys.argv[1]), os.environ)
    async with running(config, announce=lambda _line: None) as server:
        gc.freeze()  # what is there from the start is not gone through by each look
        await answer_questions({"port": server.rpc.port}, {"look": lambda: look(server)})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
