"""Where every process that makes calls hears how the engines are, and says what it does with them.

A Unix socket in the engines' private folder; one JSON object per line, one connection per process. An engine
falls asleep only when all have answered the status that tells them to send no more calls. Refuses to know
what an engine is doing; `supervisor` does.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from router_server.engines.supervisor import Report, Supervisor


class Desk:
    """Serves until closed.

    Engines come and go by `add` and `remove`.
    """

    def __init__(self) -> None:
        self._supervisors: dict[str, Supervisor] = {}
        self._callers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether it listens."""
        return self._server is not None

    def add(self, supervisor: Supervisor) -> None:
        """Tell everyone of an engine from now on."""
        self._supervisors[supervisor.key] = supervisor
        supervisor.changed = self._tell_all
        for caller in self._callers:
            supervisor.joined(caller)
        self._tell_all(supervisor)

    def remove(self, supervisor: Supervisor) -> None:
        """Tell everyone that an engine is no more."""
        del self._supervisors[supervisor.key]
        line = json.dumps({"engine": supervisor.key, "gone": True}).encode() + b"\n"
        for caller in self._callers:
            caller.write(line)

    async def listen(self, path: Path) -> None:
        """Take the socket."""
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        """Let everyone go."""
        if self._server is not None:
            self._server.close()
        for caller in self._callers:
            caller.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers.add(writer)
        for supervisor in self._supervisors.values():
            supervisor.joined(writer)
            writer.write(_line(supervisor))
        try:
            with suppress(ConnectionError):
                async for line in reader:
                    self._heard(writer, line)
        finally:
            self._callers.discard(writer)
            for supervisor in self._supervisors.values():
                supervisor.left(writer)
            writer.close()

    def _heard(self, caller: object, line: bytes) -> None:
        said = json.loads(line)
        supervisor = self._supervisors.get(said["engine"])
        if supervisor is None:
            return  # it has gone in the meantime
        # First the wish: a report without calls would be leave to sleep.
        if said["wanted"]:
            supervisor.want()
        supervisor.reported(caller, Report(said["version"], said["calls"], said["progress"]))

    def _tell_all(self, supervisor: Supervisor) -> None:
        line = _line(supervisor)
        for caller in self._callers:
            caller.write(line)


def _line(supervisor: Supervisor) -> bytes:
    return json.dumps({"engine": supervisor.key, **asdict(supervisor.status)}).encode() + b"\n"
