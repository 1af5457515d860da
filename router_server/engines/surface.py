"""What a running engine is asked beside the calls: is it well, does it move, sleep, wake up.

The paths and the counters are vLLM's; an engine that lacks some is only known less well. Refuses to decide
anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import aiohttp

_OK: Final = 200
_MOST_BYTES: Final = 4 * 1024 * 1024
"""Of a page of metrics; vLLM's has about 100 kB."""

_QUEUED: Final = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_MOVING: Final = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")

_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine tells of its work: requests in it, and a sum that grows whenever it gets on with any."""

    requests: float
    progress: float


class Surface:
    """An engine's HTTP surface on its Unix socket.

    Args:
        socket: the path.
        timeout: seconds for `well` and `load`.
    """

    def __init__(self, socket: str, timeout: float) -> None:
        self.change(timeout)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    def change(self, timeout: float) -> None:
        """Wait another time for `well` and `load`."""
        self._quick = aiohttp.ClientTimeout(total=timeout)

    async def well(self) -> bool:
        """Tell whether it says that it is well."""
        try:
            async with self._session.get("http://engine/health", timeout=self._quick) as response:
                return response.status == _OK
        except _FAILURES:
            return False

    async def load(self) -> Load | None:
        """Return what it tells of its work, or None where it tells nothing."""
        try:
            async with self._session.get("http://engine/metrics", timeout=self._quick) as response:
                if response.status != _OK:
                    return None
                return read_load((await response.content.read(_MOST_BYTES)).decode(errors="replace"))
        except _FAILURES:
            return None

    async def sleep(self, within: float) -> bool:
        """Ask it to give back what its model holds; tell whether it says that it has."""
        return await self._told("POST", "/sleep?level=1", within) and await self._sleeps()

    async def wake(self, within: float) -> bool:
        """Ask it to wake up; tell whether it has."""
        return await self._told("POST", "/wake_up", within)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _told(self, method: str, path: str, within: float) -> bool:
        timeout = aiohttp.ClientTimeout(total=within)
        try:
            async with self._session.request(method, f"http://engine{path}", timeout=timeout) as response:
                return response.status == _OK
        except _FAILURES:
            return False

    async def _sleeps(self) -> bool:
        try:
            async with self._session.get("http://engine/is_sleeping", timeout=self._quick) as response:
                return bool((await response.json()).get("is_sleeping"))
        except (*_FAILURES, AttributeError):
            return False


def read_load(page: str) -> Load | None:
    """Return the load that a page of metrics tells, or None where it has no such metrics.

    Read by line: a full parser takes 30 ms of the event loop for vLLM's page.
    """
    requests: float | None = None
    progress = 0.0
    for line in page.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _QUEUED:
            requests = (requests or 0.0) + _value(line)
        elif name in _MOVING:
            progress += _value(line)
    return None if requests is None else Load(requests, progress)


def _value(line: str) -> float:
    return float(line.rpartition(" ")[2])
