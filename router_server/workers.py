"""Several server processes on one port: started together, told to stop together, never outliving the parent.

Each worker is a process of its own with one event loop, started afresh, not forked: threads of gRPC do not
survive a fork. The parent answers no call; it watches, and serves the sum of the workers' metrics. A
connection stays with the worker that took it. Refuses to know what a worker serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import FileIO, RawIOBase
from pathlib import Path

from router_server.config import AdaptiveConfig, Config, host_and_port
from router_server.orders import Order, Orders, give_all

READY = b"ready\n"
"""What a worker says on its standard output once it serves."""

_MODULE = "router_server.worker"


class WorkerError(Exception):
    """A worker could not start, or ended by itself; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told on its standard input.

    Attributes:
        config: with the worker's share of every limit.
        metrics_socket: where its metrics are fetched.
        engines: the folder of the engines' sockets; the parent runs them.
    """

    config: Config
    metrics_socket: Path
    engines: Path


def divided(config: Config) -> Config:
    """Return ``config`` with each worker's share of every limit.

    Nothing is shared between workers, so the whole stays within what the file allows. ``check-config``
    refuses more workers than a limit has places.
    """
    workers = config.server.workers
    providers = {
        name: provider.model_copy(
            update={
                "max_concurrency": provider.max_concurrency // workers,
                "max_queue": provider.max_queue // workers,
                "adaptive": _divided_adaptive(provider.adaptive, workers),
            }
        )
        for name, provider in config.providers.items()
    }
    targets = {
        name: target.model_copy(update={"max_concurrency": target.max_concurrency // workers})
        if target.max_concurrency is not None
        else target
        for name, target in config.targets.items()
    }
    return config.model_copy(update={"providers": providers, "targets": targets})


def _divided_adaptive(adaptive: AdaptiveConfig | None, workers: int) -> AdaptiveConfig | None:
    return None if adaptive is None else AdaptiveConfig(min=max(1, adaptive.min // workers))


@contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold a TCP address for workers to share, and give it with its port; other addresses pass through.

    Whoever listens there already, with shared ports or not, is found out: the first bind is exclusive. The
    second one only holds the port, without listening, so no connection ever arrives here.

    Raises:
        WorkerError: the address cannot be had.
    """
    parts = host_and_port(address)
    if parts is None:
        raise WorkerError(f"{address}: several workers cannot share a socket file; use a port, or workers: 1")
    host, port = parts
    family, *_rest, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as exclusive:
        exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            exclusive.bind(place)
            exclusive.listen(1)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise WorkerError(
                f"cannot listen on {address}: {reason}; stop whoever listens there, or choose another port"
            ) from None
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(place)
        bracketed = f"[{host}]" if ":" in host else host
        yield f"{bracketed}:{holder.getsockname()[1]}"


class Workers:
    """The running workers.

    Args:
        processes: one each; their standard input is open as long as the parent lives.
    """

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self._orders = [Orders(process) for process in processes]
        self.told_to_stop = False

    def stop(self) -> None:
        """Tell every worker to drain; told again, they end at once."""
        self.told_to_stop = True
        self.tell(signal.SIGTERM)

    def tell(self, number: signal.Signals) -> None:
        """Send every worker a signal."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def give(self, orders: Sequence[Order]) -> None:
        """Give each worker its order, and wait until all have answered.

        Raises:
            SetupError: one could not carry it out.
        """
        await give_all(self._orders, orders)

    async def ended(self) -> Sequence[int]:
        """Return the exit codes once all workers have ended."""
        return await asyncio.gather(*(process.wait() for process in self._processes))

    async def first_to_end(self) -> int:
        """Return the exit code of whichever worker ends first."""
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for wait in waits:
                wait.cancel()


@asynccontextmanager
async def started(tasks: Sequence[Task]) -> AsyncIterator[Workers]:
    """Start a worker for each of ``tasks``; when this is entered all serve, when it is left all have ended.

    Raises:
        WorkerError: one did not come up; what it said is on standard error.
    """
    processes = [await _start(task) for task in tasks]
    workers = Workers(processes)
    try:
        for number, process in enumerate(processes):
            assert process.stdout is not None  # noqa: S101 - it was asked for
            if await process.stdout.readline() != READY:
                raise WorkerError(f"worker {number} could not start; what it said stands above")
        yield workers
    finally:
        workers.tell(signal.SIGKILL)
        await workers.ended()


async def _start(task: Task) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _MODULE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for the parent, who tells the workers; twice would end them at once.
        start_new_session=True,
    )
    data = pickle.dumps(task)
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.write(len(data).to_bytes(8, "big") + data)
    await process.stdin.drain()
    return process


def read_task(stream: int) -> Task:
    """Return what the parent says on the file descriptor ``stream``, which stays open.

    Raises:
        EOFError: the parent is gone.
    """
    with FileIO(stream, closefd=False) as parent:
        size = int.from_bytes(_exactly(parent, 8), "big")
        task = pickle.loads(_exactly(parent, size))  # noqa: S301 - from our parent, through a pipe that is ours
    assert isinstance(task, Task)  # noqa: S101 - narrows the type
    return task


def _exactly(stream: RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise EOFError("the parent is gone")
        data += piece
    return data
