"""The RPCs that are being answered: how many, until when, and how to end them all.

grpc.aio's ``stop`` does not wait for RPCs that were aborted, so whoever closes upstreams behind it waits
here. An RPC is in flight until its status has left, not only until its answer was made.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from router_server.core.cutoff import Cutoff
from router_server.core.errors import Reason, RouterError
from router_server.rpc.current import Rpc

_LULL_STEP: Final = 0.001
_LULL_STEPS: Final = 4
"""Turns of the loop, and seconds between them, without a new RPC: whatever waited to be begun has begun."""


class InFlight:
    """The set of running RPCs of one process."""

    def __init__(self) -> None:
        self._running: set[Cutoff] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._interrupted = False
        self._began = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def count_current_task(self) -> None:
        """Count the current task as one RPC until it is done; called before its request is read."""
        task = asyncio.current_task()
        assert task is not None, "an RPC is answered in a task"  # noqa: S101 - narrows the type
        if not self._tasks:
            self._empty.clear()
        self._tasks.add(task)
        self._began += 1
        task.add_done_callback(self._done)

    def answering(self, rpc: Rpc) -> Answering:
        """Return a context in which `interrupt_all` ends what runs inside.

        It raises `RouterError`, STREAM_INTERRUPTED, if that was ended so, or came too late.
        """
        return Answering(self._running, rpc, too_late=self._interrupted)

    def interrupt_all(self) -> int:
        """End every RPC with STREAM_INTERRUPTED, from now on; return how many there were."""
        self._interrupted = True
        for cutoff in self._running:
            cutoff.cut()
        return len(self._running)

    async def wait_for_lull(self, patience: float) -> None:
        """Return once no RPC has begun for a moment, or after ``patience`` seconds."""
        ends = asyncio.get_running_loop().time() + patience
        before, steps = self._began, 0
        while steps < _LULL_STEPS and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(_LULL_STEP)
            before, steps = self._began, steps + 1 if self._began == before else 0

    async def wait_until_empty(self) -> None:
        """Return once no RPC is in flight."""
        await self._empty.wait()

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._empty.set()


class Answering:
    """See `InFlight.answering`."""

    __slots__ = ("_cutoff", "_rpc", "_running", "_too_late")

    def __init__(self, running: set[Cutoff], rpc: Rpc, *, too_late: bool) -> None:
        self._running = running
        self._rpc = rpc
        self._too_late = too_late
        self._cutoff = Cutoff()

    def __enter__(self) -> None:
        if self._too_late:
            raise _interruption(self._rpc)
        self._cutoff.__enter__()
        self._running.add(self._cutoff)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.discard(self._cutoff)
        try:
            self._cutoff.__exit__(kind, error, trace)
        except TimeoutError:
            raise _interruption(self._rpc) from None


def _interruption(rpc: Rpc) -> RouterError:
    return RouterError(
        Reason.STREAM_INTERRUPTED,
        "the server is shutting down, and this call did not end within the time it gives; send it again",
        usage=rpc.call.usage if rpc.call else None,
    )
