"""An event loop on a thread of its own, for code that has none. Refuses to know what runs there."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from router_server.library.lifetime import NotRunningError, forked

T = TypeVar("T")

_CLOSED = "the router is closed; open another one"


class LoopThread:
    """Runs until `end`."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._guard = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="router", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` there, and return what it returns; any thread but that one may call.

        Raises:
            NotRunningError: it has ended, or ends meanwhile; or this process was forked from the loop's.
        """
        if os.getpid() != self._process:
            work.close()
            raise forked()
        with self._guard:
            if self._over:
                work.close()
                raise NotRunningError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise NotRunningError(_CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def end(self) -> None:
        """Cancel what still runs, and end the thread; does nothing the second time, or beyond a fork."""
        if os.getpid() != self._process:
            return
        with self._guard:
            if self._over:
                return
            self._over = True
        asyncio.run_coroutine_threadsafe(_wound_up(self._loop), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _wound_up(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in others:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in others if task is not None), return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
