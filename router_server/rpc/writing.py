"""The messages of one stream on their way to the caller, one at a time, with no task that waits for each.

grpc.aio's ``write`` is a coroutine that waits for one future. A task that awaits it is waked when there is a
message, and once more when it has left: two steps through a dozen frames, none of which does anything. Here
it is begun at once, from wherever the message comes, and gone on with when the next one is here.

Refuses to know what the messages are.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final, Self

from grpc import aio

from router_server.rpc.stall import Steps

Put = Callable[[Any], bool]
"""Puts a message on its way; tells whether it did, which it does not while another is."""

Context = aio.ServicerContext[Any, Any]


class Writing:
    """Writes the messages of one stream; left, it waits until all are written, unless by a cancellation.

    Args:
        context: where to.
        steps: told of each write, so that none takes too long.
    """

    __slots__ = ("_context", "_steps", "_until", "_write")

    def __init__(self, context: Context, steps: Steps) -> None:
        self._context: Final = context
        self._steps: Final = steps
        self._write: Coroutine[Any, Any, None] | None = None
        self._until: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End."""
        try:
            if kind is None or issubclass(kind, Exception):
                await self.end()
        finally:
            self._give_up()

    def put(self, message: Any) -> bool:
        """Begin to write ``message``, unless another is being written; tell whether it was begun.

        Raises:
            aio.BaseError: the call is over.
        """
        if self._write is not None:
            if not self._until.done() or self._until.exception() is not None:
                return False
            self._go_on(self._write)
        self._go_on(self._context.write(message))
        return True

    async def write(self, message: Any) -> None:
        """Begin to write ``message`` once the one before it is written.

        Raises:
            aio.BaseError: one of them could not be written.
        """
        await self.end()
        self._go_on(self._context.write(message))

    async def end(self) -> None:
        """Return once all is written.

        Raises:
            aio.BaseError: the last message could not be.
        """
        while self._write is not None:
            if not self._until.done():
                await _turn_over(self._until)
            self._go_on(self._write)

    def _give_up(self) -> None:
        write, self._write = self._write, None
        if write is not None:
            self._until.cancel()  # or, if it has failed, it would be logged that nobody looked at it
            write.close()

    def _go_on(self, write: Coroutine[Any, Any, None]) -> None:
        self._write = None
        try:
            self._until = write.send(None)
        except StopIteration:
            return
        self._write = write
        self._steps.begin(self._until)


@types.coroutine
def _turn_over(future: asyncio.Future[None]) -> Generator[asyncio.Future[None], None, None]:
    """Let the task wait for what a coroutine inside it, which was begun outside of it, waits for."""
    yield future
