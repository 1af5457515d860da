"""One exposition from many: fetches the metrics of several workers and sums them.

Counters, histograms and most gauges add up; a breaker's state is the worst of the workers'. A worker that
does not answer in time is left out, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from router_server.http.server import Exposition

_PATIENCE = 1.0
"""Seconds that a worker has for its metrics."""

_UNREACHABLE = "modelrouter_workers_unreachable"

_WORST = ("breaker_state",)
"""Gauges whose sum means nothing: the largest of the workers' stands for all."""

_SAME = frozenset({"info"})

Key = tuple[str, tuple[tuple[str, str], ...]]


async def gather(sockets: Sequence[Path], accept: str) -> Exposition:
    """Return the sum of what the workers behind ``sockets`` tell, as ``accept`` wants it."""
    texts = await asyncio.gather(*(_fetch(socket) for socket in sockets))
    answered = [text for text in texts if text is not None]
    families = summed(answered, unreachable=len(sockets) - len(answered))
    encode, content_type = choose_encoder(accept)
    return encode(_registry(families)), content_type


def summed(texts: Iterable[str], *, unreachable: int) -> list[Metric]:
    """Return the metric families of all ``texts`` together, and how many could not be asked."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[Key, float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            _add(family, values.setdefault(family.name, {}))
    for name, samples in values.items():
        families[name].samples = [Sample(n, dict(labels), value) for (n, labels), value in samples.items()]
    lost = Metric(_UNREACHABLE, "Workers whose metrics are missing here.", "gauge")
    lost.add_sample(_UNREACHABLE, {}, unreachable)
    return [*families.values(), lost]


def _add(family: Metric, totals: dict[Key, float]) -> None:
    for sample in family.samples:
        if sample.name.endswith("_created"):
            continue
        key = (sample.name, tuple(sorted(sample.labels.items())))
        known = totals.get(key)
        if known is None:
            totals[key] = sample.value
        elif family.name.endswith(_WORST) or family.type in _SAME or family.name == "target":
            totals[key] = max(known, sample.value)
        else:
            totals[key] = known + sample.value


async def _fetch(socket: Path) -> str | None:
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with (
            aiohttp.UnixConnector(str(socket)) as connector,
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://worker/metrics", headers={"Accept": "text/plain"}) as response,
        ):
            return await response.text() if response.ok else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _registry(families: Sequence[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return registry
