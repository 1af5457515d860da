"""Work that goes on beside the calls for as long as a context lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

_log = logging.getLogger(__name__)


@asynccontextmanager
async def background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Do ``work`` until the context is left; it is not meant to end, and the log says so if it does."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(log_unexpected_end)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def log_unexpected_end(task: asyncio.Task[None]) -> None:
    """Say in the log that ``task``, which is meant to last, has failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("The task %s ended: the router goes on without it.", task.get_name(), exc_info=error)
