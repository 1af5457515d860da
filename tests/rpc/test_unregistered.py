"""That grpc.aio waits for one thing at a time: the next call, of whatever method."""

from __future__ import annotations

import asyncio
import types

from tests.rpc.scripted import chat_request, serving, until

LOOP_AND_NEXT_CALL = 2


async def test_no_method_has_a_task_of_its_own_that_waits_for_its_calls() -> None:
    async with serving() as it:
        await it.stub.Chat(chat_request())
        await until(lambda: len(tasks_of_grpc()) <= LOOP_AND_NEXT_CALL)


def tasks_of_grpc() -> list[asyncio.Task[object]]:
    """Return those that run what is compiled."""
    tasks = asyncio.all_tasks()
    return [task for task in tasks if not isinstance(task.get_coro(), types.CoroutineType)]
