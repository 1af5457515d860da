"""Something that takes a while to make: made once, on a thread, when it is first wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers import SetupError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Loading(Generic[_T]):
    """``make`` runs on ``executor``, at most once; what it raises is logged once and remembered.

    ``what`` it makes, in words for people.
    """

    def __init__(self, executor: Executor, make: Callable[[], _T], what: str) -> None:
        self._executor = executor
        self._make = make
        self._what = what
        self._future: asyncio.Future[_T] | None = None

    @property
    def started(self) -> bool:
        """Whether anybody has wanted it yet."""
        return self._future is not None

    @property
    def failed(self) -> bool:
        """Whether it could not be made."""
        future = self._future
        return future is not None and future.done() and (future.cancelled() or future.exception() is not None)

    def start(self) -> asyncio.Future[_T]:
        """Begin if that has not happened; called inside the running loop."""
        if self._future is None:
            self._future = asyncio.get_running_loop().run_in_executor(self._executor, self._make)
            self._future.add_done_callback(self._report)
        return self._future

    async def get(self) -> _T:
        """Return it as soon as it is there; a caller that is cancelled does not take it from the others.

        Raises:
            UpstreamError: UNAVAILABLE, it could not be made.
        """
        try:
            return await asyncio.shield(self.start())
        except SetupError as error:
            raise UpstreamError(Outcome.UNAVAILABLE, "not_loaded") from error

    def _report(self, future: asyncio.Future[_T]) -> None:
        error = None if future.cancelled() else future.exception()
        if error:
            _log.error("%s cannot be used: %s", self._what, error)
