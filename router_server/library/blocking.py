"""The same router for code that is not asynchronous: its loop runs on a thread of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, Unpack

from router_server.library.lifetime import NotRunningError
from router_server.library.loop_thread import LoopThread

if TYPE_CHECKING:
    from router_server.library.conversation import ChatOptions, Conversation, EmbedOptions, Reply
    from router_server.library.router import Router
    from router_server.library.stats import Stats


class BlockingRouter:
    """What ``with Router…`` gives; methods and arguments are those of `Router`. Any thread may call.

    Args:
        router: does the work.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._thread: LoopThread | None = None

    def begin(self) -> Self:
        """Start the thread and the router."""
        thread = LoopThread()
        try:
            thread.run(self._router.__aenter__())
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        return self

    def end(self) -> None:
        """Close the router and end the thread; does nothing the second time."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            # Beyond a fork there is nothing to close: all of it is the other process's.
            with suppress(NotRunningError):
                thread.run(self._router.__aexit__())
        finally:
            thread.end()

    def __del__(self) -> None:
        """Warn of a router that nobody has closed."""
        if self._thread is not None:
            warnings.warn(f"{self!r} was not closed; use `with`", ResourceWarning, source=self, stacklevel=2)

    def chat(self, conversation: Conversation, **options: Unpack[ChatOptions]) -> Reply:
        """Return the whole answer."""
        return self._running.run(self._router.chat(conversation, **options))

    def stream_chat(self, conversation: Conversation, **options: Unpack[ChatOptions]) -> Iterator[str]:
        """Yield the answer's text as it comes; leaving the loop early ends the call."""
        thread = self._running
        pieces: Any = self._router.stream_chat(conversation, **options)
        try:
            while (piece := thread.run(_next(pieces))) is not None:
                yield piece
        finally:
            # A router that was closed meanwhile has ended the call itself.
            with suppress(NotRunningError):
                thread.run(pieces.aclose())

    def embed(self, inputs: str | Sequence[str], **options: Unpack[EmbedOptions]) -> list[list[float]]:
        """Return one vector per input, in order."""
        return self._running.run(self._router.embed(inputs, **options))

    def stats(self) -> Stats:
        """Return what became of the calls so far."""
        thread = self._thread
        return self._router.stats() if thread is None else thread.run(_stats(self._router))

    @property
    def _running(self) -> LoopThread:
        if self._thread is None:
            raise NotRunningError("the router is closed; open another one with `with`")
        return self._thread


async def _next(pieces: Any) -> str | None:
    async for piece in pieces:
        return str(piece)
    return None


async def _stats(router: Router) -> Stats:
    return router.stats()
