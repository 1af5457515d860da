"""Health as gRPC defines it: a board of names and states, and the service that reads it out.

Own, not the published servicer: that one starts "" as SERVING, and holds a lock while it writes, so one
watcher that does not read would keep every other from hearing that this server drains. Here each watcher
has one flag; it is told the newest state, and states in between are skipped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelrouter.v1 import service_pb2

LIVENESS: Final = "liveness"
"""The loop turns. True as long as anyone answers."""

READINESS: Final = (
    "readiness",
    "",
    service_pb2.DESCRIPTOR.services_by_name["ModelRouterService"].full_name,
)
"""Three names of one state: started, configured, not draining."""

_STATES: Mapping[bool | None, int] = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
    None: health_pb2.HealthCheckResponse.UNKNOWN,
}
_MOST_LISTED = 100
"""What the health protocol lets a List answer hold."""

Metadata = tuple[tuple[str, str], ...]

Context = aio.ServicerContext[Any, Any]


class HealthBoard:
    """The state of every name, for any number of servers. Starts alive and not ready."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {LIVENESS: _STATES[True]} | dict.fromkeys(READINESS, _STATES[False])
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._notes: dict[str, Metadata] = {}
        self._draining = False

    def set(self, name: str, serving: bool | None) -> None:
        """Say how ``name`` is: ``route/chat`` for example; None means that nobody knows."""
        self._put(name, _STATES[serving])

    def note(self, name: str, notes: Metadata) -> None:
        """Keep what is to be told beside the state of ``name``; printable ASCII."""
        self._notes[name] = notes

    def remove(self, name: str) -> None:
        """Forget ``name``: it is unknown from now on, to its watchers too."""
        self._notes.pop(name, None)
        if self._states.pop(name, None) is not None:
            self._tell(name)

    def set_ready(self, ready: bool) -> None:
        """Say whether this server wants calls. Without effect once it drains."""
        for name in READINESS:
            self._put(name, _STATES[ready and not self._draining])

    def drain(self) -> None:
        """Want no more calls, for good. Liveness stays."""
        self._draining = True
        self.set_ready(False)

    @property
    def ready(self) -> bool:
        """Whether this server wants calls."""
        return self._states[READINESS[0]] == _STATES[True]

    def state(self, name: str) -> int | None:
        """Return the ServingStatus of ``name``, or None where there is no such name."""
        return self._states.get(name)

    def notes(self, name: str) -> Metadata:
        """Return what is told beside the state of ``name``."""
        return self._notes.get(name, ())

    def states(self) -> Mapping[str, int]:
        """Return every name's ServingStatus."""
        return dict(self._states)

    async def watch(self, name: str) -> AsyncGenerator[int | None, None]:
        """Yield the state of ``name``, and again whenever it is another than the last one yielded."""
        changed = asyncio.Event()
        self._watchers[name].add(changed)
        try:
            while True:
                changed.clear()
                state = told = self._states.get(name)
                yield told
                while state == told:
                    await changed.wait()
                    changed.clear()
                    state = self._states.get(name)
        finally:
            self._watchers[name].discard(changed)
            if not self._watchers[name]:
                del self._watchers[name]

    @property
    def watchers(self) -> int:
        """How many are watching."""
        return sum(map(len, self._watchers.values()))

    def _put(self, name: str, state: int) -> None:
        if self._states.get(name) != state:
            self._states[name] = state
            self._tell(name)

    def _tell(self, name: str) -> None:
        # get, since looking a defaultdict's key up would make an entry for every name that is set.
        for changed in self._watchers.get(name, ()):
            changed.set()


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated without types
    """Reads a board out."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - the protocol's name
        """Return the state of one name, and its notes as trailers; NOT_FOUND where there is no such name."""
        state = self._board.state(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such name; List tells which there are")
        context.set_trailing_metadata(self._board.notes(request.service))
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - the protocol's name
        """Send the state of one name now and at every change; unknown names may become known."""
        # Written, not yielded: grpc.aio leaves it to the garbage collector to close a generator.
        async with aclosing(self._board.watch(request.service)) as states:
            async for state in states:
                told = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN if state is None else state
                await context.write(health_pb2.HealthCheckResponse(status=told))

    async def List(self, request: Any, context: Context) -> Any:  # noqa: N802 - the protocol's name
        """Return the state of every name."""
        del request
        states = self._board.states()
        if len(states) > _MOST_LISTED:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many names to list; Check them singly"
            )
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=state) for name, state in states.items()}
        )
