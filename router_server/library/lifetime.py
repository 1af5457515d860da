"""When a router in one's own process can be used: from where it is opened until it is closed.

Refuses to know what a router does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from router_server.config import Config
from router_server.core.observer import Observer
from router_server.state.opening import open_state
from router_server.works import Works, works

_log = logging.getLogger(__name__)


class NotRunningError(RuntimeError):
    """The router cannot be used here and now; the message says why and what to do."""


class Home:
    """Where a router was opened: this process, this event loop. Nowhere else can its sockets be used."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Return if this is it.

        Raises:
            NotRunningError: it is not.
        """
        if os.getpid() != self._process:
            raise forked()
        if asyncio.get_running_loop() is not self._loop:
            raise NotRunningError(
                "the router was opened on another event loop; open one on each, or use `with Router…`, "
                "which any thread may call"
            )


def forked() -> NotRunningError:
    """Return the error of a router that is used beyond a fork."""
    return NotRunningError("the router was opened before this process was forked; open one after it")


def own(config: Config) -> Config:
    """Return ``config`` without what makes no sense in one's own process, and say what that is.

    Nobody asks here who calls, and nobody but the caller sees the log and the spans of the process.
    """
    left_out = ["auth"] if config.auth else []
    left_out += ["telemetry"] if config.telemetry != type(config.telemetry)() else []
    if left_out:
        _log.warning(
            "Of the configuration these sections are a server's matter, and do nothing in a process of "
            "one's own: %s",
            ", ".join(left_out),
        )
    server = config.server.model_copy(update={"workers": 1})
    telemetry = config.telemetry.model_copy(update={"record_content": False})
    return config.model_copy(update={"auth": None, "server": server, "telemetry": telemetry})


@asynccontextmanager
async def opened(config: Config, observer: Observer, copies: Observer) -> AsyncIterator[Works]:
    """Give the works of ``config``, tended, with the state that it shares, until the context ends.

    Raises:
        SetupError: a provider lacks something that only the machine can give.
    """
    async with AsyncExitStack() as stack:
        state = open_state(config.redis.get_secret_value() if config.redis else None)
        stack.push_async_callback(state.close)
        await state.connect()
        opening = works(config, state, observer, copies=copies, announce=_log.info)
        parts = await stack.enter_async_context(opening)
        await stack.enter_async_context(parts.tended())
        yield parts
