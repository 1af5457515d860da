"""The same router for code that is not asynchronous: its loop runs on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from router_server.library.router import Conversation, Reply, Router
    from router_server.library.stats import Stats

T = TypeVar("T")


class BlockingRouter:
    """What ``with Router…`` gives; methods and arguments are those of `Router`. Any thread may call.

    Args:
        router: does the work.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="router", daemon=True)

    def begin(self) -> Self:
        """Start the thread and the router."""
        self._thread.start()
        try:
            self._run(self._router.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def end(self) -> None:
        """Close the router and end the thread."""
        try:
            self._run(self._router.__aexit__())
        finally:
            self._stop()

    def chat(self, conversation: Conversation, **options: Any) -> Reply:
        """Return the whole answer."""
        return self._run(self._router.chat(conversation, **options))

    def stream_chat(self, conversation: Conversation, **options: Any) -> Iterator[str]:
        """Yield the answer's text as it comes; leaving the loop early ends the call."""
        pieces: Any = self._router.stream_chat(conversation, **options)
        try:
            while (piece := self._run(_next(pieces))) is not None:
                yield piece
        finally:
            self._run(pieces.aclose())

    def embed(self, inputs: str | Sequence[str], **options: Any) -> list[list[float]]:
        """Return one vector per input, in order."""
        return self._run(self._router.embed(inputs, **options))

    def stats(self) -> Stats:
        """Return what became of the calls so far."""
        return self._run(_call(self._router))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(pieces: Any) -> str | None:
    async for piece in pieces:
        return str(piece)
    return None


async def _call(router: Router) -> Stats:
    return router.stats()
