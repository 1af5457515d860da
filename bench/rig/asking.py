"""How answers are waited for, whatever the protocol: clients take requests, sinks take answers."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

from bench.rig.process import BenchError

T = TypeVar("T")


class Sink(Protocol):
    """Where the bytes of one answer go."""

    def data(self, chunk: bytes) -> None:
        """Take bytes of the body."""

    def end(self, error: str | None) -> None:
        """Learn that the answer is over; ``error`` says why where it is not whole."""


class Client(Protocol):
    """Some connections to one server."""

    def ask(self, body: bytes, sink: Sink) -> None:
        """Send a request."""

    def close(self) -> None:
        """Drop every connection."""


class Stopwatch:
    """The times of one answer, in seconds from when it was asked for.

    Args:
        due: when it was to be asked for, on time.perf_counter; default: now.
    """

    __slots__ = ("_began", "done", "first", "whole")

    def __init__(self, due: float | None = None) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first = 0.0
        self.whole = 0.0
        self._began = time.perf_counter() if due is None else due

    def data(self, chunk: bytes) -> None:
        """Note when the first bytes came."""
        if not self.first:
            self.first = time.perf_counter() - self._began
        del chunk

    def end(self, error: str | None) -> None:
        """Note when the last came."""
        self.whole = time.perf_counter() - self._began
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(BenchError(f"a call failed: {error}"))


async def timed(client: Client, body: bytes, due: float | None = None) -> Stopwatch:
    """Ask once and return the times.

    Raises:
        BenchError: the call failed.
    """
    watch = Stopwatch(due)
    client.ask(body, watch)
    await watch.done
    return watch


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a client to its end; no garbage is collected in between, which would count as the server's."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(coroutine)
    finally:
        gc.enable()
