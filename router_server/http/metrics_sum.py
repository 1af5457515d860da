"""One Prometheus exposition from those of several workers. Pure: it neither fetches nor remembers.

Counters and histograms add up, and so do most gauges; `_COMBINED` names what does not. An info,
such as ``target_info``, is the first worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

UNREACHABLE: Final = "modelrouter_workers_unreachable"

_COMBINED: Final[Mapping[str, Callable[[float, float], float]]] = {
    "modelrouter_breaker_state": max,
    "modelrouter_budget_used": max,
    "modelrouter_check_duration_seconds": max,
    "modelrouter_config_refused": max,
    "modelrouter_config_reloads": max,
    "modelrouter_engine_asleep_seconds": max,
    "modelrouter_engine_restarts": max,
    "modelrouter_engine_start_duration_seconds": max,
    "modelrouter_engine_state": max,
    "modelrouter_engine_wakes": max,
    "modelrouter_target_cooling_seconds": max,
    "modelrouter_target_healthy": min,
    "modelrouter_engine_up": min,
    "modelrouter_engine_running": max,
    "modelrouter_engine_waiting": max,
    "modelrouter_engine_kv_cache_usage": max,
    "process_start_time_seconds": min,
}
"""What has a sum that means nothing, and what does: the worst of the workers, the oldest of the processes; of
engines, which they share, whoever has heard the latest."""

_ADDED_UP: Final = frozenset({"counter", "histogram", "summary"})

Families = tuple[Metric, ...]

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Totals = dict[_Key, float]


def parsed(text: str) -> Families:
    """Return the metric families of one worker's exposition.

    Raises:
        ValueError: the text is not an exposition.
    """
    return tuple(text_string_to_metric_families(text))


def summed(fresh: Iterable[Families], stale: Iterable[Families] = (), *, unreachable: int = 0) -> Families:
    """Return the metric families of all workers together.

    Args:
        fresh: what the workers tell now.
        stale: the last words of workers that do not answer now. Their counters and histograms count on:
            a sum that fell and rose again would look to Prometheus like a restart, and to ``rate()`` like
            all their calls at once. Their gauges do not count.
        unreachable: how many workers do not answer now.
    """
    families: dict[str, Metric] = {}
    totals: dict[str, _Totals] = {}
    for family in chain.from_iterable(fresh):
        _add(family, families, totals)
    for family in chain.from_iterable(stale):
        if family.type in _ADDED_UP:
            _add(family, families, totals)
    for name, family in families.items():
        family.samples = [
            Sample(sample, dict(labels), value) for (sample, labels), value in totals[name].items()
        ]
    return (*families.values(), _lost(unreachable))


def registry_of(families: Families) -> CollectorRegistry:
    """Return a registry that holds ``families``, for an encoder."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return registry


def _add(family: Metric, families: dict[str, Metric], totals: dict[str, _Totals]) -> None:
    known = family.name in families
    if known and family.name.endswith("_info"):
        return
    if not known:
        families[family.name] = Metric(family.name, family.documentation, family.type)
    values = totals.setdefault(family.name, {})
    combine = _COMBINED.get(family.name, float.__add__)
    for sample in family.samples:
        key = _key(sample)
        value = float(sample.value)
        values[key] = combine(values[key], value) if key in values else value


def _key(sample: Sample) -> _Key:
    """Return what tells a series apart; an empty label is no label, and one worker may write it alone."""
    return sample.name, tuple(sorted((name, value) for name, value in sample.labels.items() if value))


def _lost(unreachable: int) -> Metric:
    family = Metric(UNREACHABLE, "Workers that do not answer, whose gauges are missing here", "gauge")
    family.add_sample(UNREACHABLE, {}, unreachable)
    return family


class _Families(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
