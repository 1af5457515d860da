"""Whether somebody wants the current task to end, or a library only raised what looks so."""

from __future__ import annotations

import asyncio


def is_being_cancelled() -> bool:
    """Tell whether the task that runs now was cancelled from outside."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
