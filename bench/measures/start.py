"""8: from nothing to SERVING, over importing grpc, aiohttp and protobuf alone."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import Final

from bench.rig import subjects
from bench.rig.asking import run
from bench.rig.bench import ROUTER, Bench, free_port, wait_for_port
from bench.rig.clients import client
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.load import Target
from bench.rig.process import BenchError, Process

_IMPORTS: Final = "imports"
_HEALTH: Final = "grpc.health.v1.Health/Check"
_READINESS: Final = b"\0\0\0\0\x0b\x0a\x09readiness"
_SERVING: Final = b"\x08\x01"
_LONGEST: Final = 60.0


class _Body:
    def __init__(self) -> None:
        self.whole = b""
        self.over = asyncio.Event()

    def data(self, chunk: bytes) -> None:
        self.whole += chunk

    def end(self, error: str | None) -> None:
        del error
        self.over.set()


def measure(bench: Bench) -> list[Finding]:
    """Return how long a start takes."""
    runs = {ROUTER: lambda: _seconds_to_serve(bench), _IMPORTS: lambda: _seconds_to_import(bench)}
    interleaved(runs, 1)  # reads the files from the disk, and leaves the bytecode beside them
    found = interleaved(runs, bench.effort.repeats)
    passed, used = (
        {name: [took[at] for took in all_took] for name, all_took in found.items()} for at in (0, 1)
    )
    return [
        compared(8, "start to SERVING", passed, ROUTER, _IMPORTS, unit="s", bound=2.5),
        compared(8, "start to SERVING: CPU", used, ROUTER, _IMPORTS, unit="s"),
    ]


def _seconds_to_serve(bench: Bench) -> tuple[float, float]:
    """Return how long it takes, and how much of that the CPU works."""
    port = free_port()
    config = subjects.router_config(port, free_port(), {"unary": bench.instant("unary")}, bench.otlp)
    began = time.monotonic()
    with subjects.ours(bench.folder, bench.core, config, f"start-{port}") as process:
        wait_for_port(process, port)
        url = f"http://127.0.0.1:{port}/{_HEALTH}"
        run(_until_serving(Target(process, url, bench.folder, ())))
        return time.monotonic() - began, process.cpu_seconds()


async def _until_serving(target: Target) -> None:
    async with asyncio.timeout(_LONGEST), client(target, 1) as server:
        while True:
            body = _Body()
            server.ask(_READINESS, body)
            await body.over.wait()
            if body.whole.endswith(_SERVING):
                return
            await asyncio.sleep(0.002)


def _seconds_to_import(bench: Bench) -> tuple[float, float]:
    code = "import aiohttp, google.protobuf.message, grpc.aio"
    began, used = time.monotonic(), _of_children()
    with Process("imports", [sys.executable, "-c", code], bench.core, bench.folder) as process:
        if process.wait(_LONGEST):
            raise BenchError(f"importing failed; see {process.log}")
    return time.monotonic() - began, _of_children() - used


def _of_children() -> float:
    """Return the CPU time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
