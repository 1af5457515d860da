"""Histograms that cost a list's addition: they take OpenTelemetry's form when metrics are read.

A histogram of its SDK cleans, sorts and hashes the attributes of every measurement, once for each reader:
8 µs with two readers, and a call makes six measurements. `Distribution.add` takes 0.4 µs.

The SDK has no way to hand it a histogram that is ready. So a place for them all is kept among its metrics
by one gauge, and `Distributions.complete` puts them there; a reader does that with what it receives.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, cast

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Metric as Reading
from opentelemetry.trace import SpanContext

from router_server.telemetry.metric import Metric
from router_server.telemetry.tally import Label

_PLACE: Final = "modelrouter.distributions"


class Series:
    """One series of a histogram. Whoever adds to it often keeps it: to find it takes as long as to add."""

    __slots__ = ("_bounds", "counts", "exemplars", "least", "most", "since", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.since = time.time_ns()
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.least = float("inf")
        self.most = float("-inf")
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, value: float, span: SpanContext | None = None) -> None:
        """Add ``value``; ``span`` is as with `Distribution.add`."""
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if value < self.least:  # noqa: PLR1730 - `min` takes five times as long
            self.least = value
        if value > self.most:  # noqa: PLR1730 - as above
            self.most = value
        if span is not None:
            self.exemplars[bucket] = Exemplar({}, value, time.time_ns(), span.span_id, span.trace_id)


class Distribution:
    """The histogram of one metric by label values. Added to by one thread, read by any."""

    __slots__ = ("_bounds", "_series", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._bounds = metric.buckets
        self._series: dict[tuple[Label, ...], Series] = {}

    def add(self, value: float, labels: tuple[Label, ...], span: SpanContext | None = None) -> None:
        """Add ``value`` to the series with these values of the metric's labels, in their order.

        Args:
            value: what was measured.
            labels: None is a label that the series does not have.
            span: a sampled one, to be named as the bucket's example.
        """
        self.series(labels).add(value, span)

    def series(self, labels: tuple[Label, ...]) -> Series:
        """Return the series with these values of the metric's labels, which begins now if it is new."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series(self._bounds)
        return series

    def read(self) -> Reading | None:
        """Return all series since they began, or None where there is none."""
        points = [self._point(labels, series) for labels, series in list(self._series.items())]
        if not points:
            return None
        metric = self.metric
        return Reading(
            metric.name, metric.description, metric.unit, Histogram(points, AggregationTemporality.CUMULATIVE)
        )

    def _point(self, labels: tuple[Label, ...], series: Series) -> HistogramDataPoint:
        counts = series.counts.copy()
        present = zip(self.metric.labels, labels, strict=True)
        return HistogramDataPoint(
            attributes={name: value for name, value in present if value is not None},
            start_time_unix_nano=series.since,
            time_unix_nano=time.time_ns(),
            count=sum(counts),
            sum=series.sum,
            bucket_counts=counts,
            explicit_bounds=self._bounds,
            min=series.least,
            max=series.most,
            exemplars=list(series.exemplars.values()),
        )


class Distributions:
    """All distributions of one process."""

    def __init__(self) -> None:
        self._all: list[Distribution] = []

    def keep_place(self, meter: Meter) -> None:
        """Make ``meter`` that among whose metrics the distributions will be."""
        meter.create_observable_gauge(_PLACE, [_keep_place])

    def create(self, metric: Metric) -> Distribution:
        """Return a new one."""
        distribution = Distribution(metric)
        self._all.append(distribution)
        return distribution

    def complete(self, data: MetricsData, change: Callable[[Reading], Reading] = lambda r: r) -> MetricsData:
        """Return ``data`` as the SDK read it, with every distribution in it, as ``change`` makes it."""

        def in_place_of(metric: Reading) -> Iterator[Reading]:
            if metric.name != _PLACE:
                yield metric
                return
            yield from map(change, filter(None, (distribution.read() for distribution in self._all)))

        def completed(scope: ScopeMetrics) -> ScopeMetrics:
            metrics = [found for metric in scope.metrics for found in in_place_of(metric)]
            return replace(scope, metrics=metrics)

        return replace(
            data,
            resource_metrics=[
                replace(resource, scope_metrics=[completed(scope) for scope in resource.scope_metrics])
                for resource in data.resource_metrics
            ],
        )


class Delta:
    """What was added to histograms since they were last seen, for collectors that ask for that."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, frozenset[tuple[str, object]]], HistogramDataPoint] = {}

    def of(self, metric: Reading) -> Reading:
        """Return ``metric``, a histogram, less what it was the last time."""
        found = cast("Histogram", metric.data).data_points
        points = [self._since(metric.name, point) for point in found]
        news = [point for point in points if point.count]
        return replace(metric, data=Histogram(news, AggregationTemporality.DELTA))

    def _since(self, name: str, point: HistogramDataPoint) -> HistogramDataPoint:
        key = (name, frozenset((point.attributes or {}).items()))
        before = self._seen.get(key)
        self._seen[key] = point
        if before is None:
            return point
        pairs = zip(point.bucket_counts, before.bucket_counts, strict=True)
        return replace(
            point,
            start_time_unix_nano=before.time_unix_nano,
            count=point.count - before.count,
            sum=point.sum - before.sum,
            bucket_counts=[now - then for now, then in pairs],
            min=None,  # type: ignore[arg-type]  # of the time between they are not known, and may be left out
            max=None,  # type: ignore[arg-type]  # as above
        )


def _keep_place(options: CallbackOptions) -> list[Observation]:
    del options
    return [Observation(0)]
