"""How busy a vLLM server is, read from its ``/metrics``. Pure.

A server with data parallelism has one series for each engine. Refuses to know how often it is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from router_server.core.provider import EngineLoad

_SAMPLE: Final = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|gpu_cache_usage_perc)"
    rb"(?:\{[^\n]*\})? ([^ \n]+)",
    re.MULTILINE,
)
"""The three gauges that are wanted, out of thousands of lines; the last name is that of vLLM before 0.11."""

_RUNNING: Final = b"num_requests_running"
_WAITING: Final = b"num_requests_waiting"


@dataclass(frozen=True, slots=True)
class Crowding:
    """From where on a server is as good as full: more requests waiting, or as much of its cache in use."""

    waiting: int = 4
    cache: float = 0.95


def read_load(exposition: bytes, crowding: Crowding) -> EngineLoad | None:
    """Return what the text says of the load, or None where it does not say it.

    The engines of one server share its requests, so these add up; a request is refused or put off by the
    one engine that gets it, so of their caches the least used counts.
    """
    values: dict[bytes, list[float]] = {}
    for name, value in _SAMPLE.findall(exposition):
        number = _number(value)
        if number is not None:
            values.setdefault(name, []).append(number)
    running, waiting = values.pop(_RUNNING, None), values.pop(_WAITING, None)
    if running is None or waiting is None:
        return None
    cache = _least([one for series in values.values() for one in series])
    return EngineLoad(
        running=sum(running),
        waiting=sum(waiting),
        cache_used=cache,
        crowded=sum(waiting) > crowding.waiting or cache >= crowding.cache,
    )


def _least(shares: Sequence[float]) -> float:
    return min(1.0, max(0.0, min(shares, default=0.0)))


def _number(text: bytes) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
