"""The chat runtime of the built-in model: threads that block, and tokens handed to the event loop.

Each running generation holds one thread, which is inside the native library and hears of a cancellation
whenever that calls back: at every token, and at every batch of a prompt. Refuses to know what a request
and a chunk mean.

The library opens an HTTP server of its own with every engine. It gets a Unix socket in a private folder
that is removed as soon as it listens, and a key that nobody knows: there is no way in but through us.
While it loads the weights it also holds the interpreter's lock, for about half a second, so it is loaded
at the start.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

Chunk = Mapping[str, Any]

_BATCH = 256
"""Prompt tokens between two callbacks: half a second on two cores, and no slower than larger batches."""


@dataclass(frozen=True, slots=True)
class EngineSize:
    """``context`` is in tokens and for each of the ``slots``; ``threads`` None is one for every core."""

    slots: int
    context: int
    threads: int | None = None


class Engine:
    """Loaded weights, and one thread for each generation that may run at once.

    Making one blocks while it loads. More generations than slots wait for a thread, in order.
    """

    def __init__(self, weights: Path, size: EngineSize) -> None:
        self._server: xllamacpp.Server | None = _load(weights, size)
        self._threads = ThreadPoolExecutor(size.slots, thread_name_prefix="embedded-chat")
        self._running: set[_Generation] = set()

    async def generate(self, body: Mapping[str, Any]) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield the answer's chunks, all that have come since the last yield.

        Closing the iterator stops the generation and does not wait for its thread.

        Raises:
            ValueError: the engine refuses the request.
            RuntimeError: the engine has been closed.
        """
        if self._server is None:
            raise RuntimeError("the engine is closed")
        generation = _Generation(asyncio.get_running_loop())
        work = self._threads.submit(generation.run, self._server, {**body, "stream": True})
        work.add_done_callback(generation.end_from_thread)
        self._running.add(generation)
        try:
            while not generation.ended or generation.waiting:
                yield await generation.take()
            if generation.stopped:
                raise RuntimeError("the engine was closed during a generation")
            work.result()
        finally:
            generation.stop()
            work.cancel()
            self._running.discard(generation)

    def close(self) -> None:
        """Stop every generation, wait for the threads, free the weights; blocks until that is done."""
        for generation in tuple(self._running):
            generation.stop()
        self._threads.shutdown(cancel_futures=True)
        self._server = None


class _Generation:
    """One request: written by its thread, read by the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived = asyncio.Event()
        self.stopped = False
        self.ended = False
        self.waiting: list[Chunk] = []

    def run(self, server: xllamacpp.Server, body: dict[str, Any]) -> None:
        if not self.stopped:
            server.handle_chat_completions(body, self._on_chunk)

    async def take(self) -> Sequence[Chunk]:
        """Return what has come, waiting until something has or the thread has ended."""
        await self._arrived.wait()
        self._arrived.clear()
        taken, self.waiting = self.waiting, []
        return taken

    def stop(self) -> None:
        self.stopped = True

    def end_from_thread(self, _: object) -> None:
        self._tell_loop(self._end)

    def _on_chunk(self, chunk: Chunk) -> bool:
        if not self.stopped:
            self._tell_loop(self._receive, chunk)
        return self.stopped

    def _receive(self, chunk: Chunk) -> None:
        self.waiting.append(chunk)
        self._arrived.set()

    def _end(self) -> None:
        # Set by the loop and not by the thread: the last chunks are still on their way to the loop.
        self.ended = True
        self._arrived.set()

    def _tell_loop(self, what: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop was closed before the engine: nobody listens any more
            self.stopped = True


def _load(weights: Path, size: EngineSize) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_parallel = size.slots
    params.n_ctx = size.slots * size.context
    params.n_batch = params.n_ubatch = max(_BATCH, size.slots)
    threads = size.threads or _cores()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.verbosity = -1
    params.ui = False
    params.n_threads_http = 1
    params.api_keys = [secrets.token_urlsafe()]
    with tempfile.TemporaryDirectory(prefix="mr-") as folder:
        params.hostnames = [str(Path(folder, "engine.sock"))]
        return xllamacpp.Server(params)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
