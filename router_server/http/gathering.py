"""Fetches the metrics of several workers over their Unix sockets, and gives their sum.

A worker that does not answer within a second, or answers nonsense, delays nobody: it is counted in
``modelrouter_workers_unreachable``. Refuses to know how expositions are summed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.exposition import choose_encoder

from router_server.http.metrics_sum import Families, parsed, registry_of, summed
from router_server.http.server import Exposition

_PATIENCE: Final = 1.0
"""Seconds that a worker has for its metrics: Prometheus gives all of them ten."""

_log = logging.getLogger(__name__)


class WorkerMetrics:
    """The metrics of all workers together.

    Args:
        sockets: where each worker serves its own /metrics.
        patience: seconds that each has to answer.
    """

    def __init__(self, sockets: Sequence[Path], patience: float = _PATIENCE) -> None:
        self._sockets = sockets
        self._timeout = aiohttp.ClientTimeout(total=patience)
        self._last: dict[Path, Families] = {}
        self._lost: set[Path] = set()

    async def gather(self, accept: str) -> Exposition:
        """Return the sum of what the workers tell, as the Accept header ``accept`` wants it."""
        answers = await asyncio.gather(*map(self._ask, self._sockets))
        fresh = {
            socket: told for socket, told in zip(self._sockets, answers, strict=True) if told is not None
        }
        self._last |= fresh
        stale = [last for socket, last in self._last.items() if socket not in fresh]
        missing = len(self._sockets) - len(fresh)
        return await asyncio.to_thread(_encoded, list(fresh.values()), stale, missing, accept)

    async def _ask(self, socket: Path) -> Families | None:
        try:
            families = await asyncio.to_thread(parsed, await self._fetch(socket))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._miss(socket, error)
            return None
        self._lost.discard(socket)
        return families

    async def _fetch(self, socket: Path) -> str:
        async with (
            aiohttp.UnixConnector(str(socket)) as connector,
            aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session,
            session.get("http://worker/metrics", headers={"Accept": "text/plain"}) as response,
        ):
            response.raise_for_status()
            return await response.text()

    def _miss(self, socket: Path, error: Exception) -> None:
        if socket not in self._lost:
            _log.warning("The metrics of %s are missing in /metrics: %s.", socket.stem, type(error).__name__)
        self._lost.add(socket)


def _encoded(
    fresh: Sequence[Families], stale: Sequence[Families], unreachable: int, accept: str
) -> Exposition:
    encode, content_type = choose_encoder(accept)
    return encode(registry_of(summed(fresh, stale, unreachable=unreachable))), content_type
