"""OTLP over HTTP: the exporters, and one warning where the collector cannot be reached.

Exporters run on threads of their own; a collector that is away costs the router memory for at most 2,048
spans, and no request waits for it. Imported only where there is a collector: `requests` and protobuf's
OTLP messages take 0.3 s to load. Refuses to know what spans and metrics mean.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from router_server.telemetry.distributions import Delta, Distributions

_log = logging.getLogger(__name__)

_EXPORTER_LOG: Final = "opentelemetry.exporter.otlp"
"""It tells of every retry of every batch; `Delivery` tells once."""
_QUEUE_LOG: Final = "opentelemetry.sdk._shared_internal"
"""It tells that the queue of spans is full, which is news only where the collector can be reached."""

_FIRST_BAD_STATUS: Final = 400

_ASK_FOR_DELTAS: Final = frozenset({"DELTA", "LOWMEMORY"})
"""The preferences with which a histogram is what was added since the last time."""


class Exporters:
    """The two exporters of one process, and whether what they send arrives.

    Args:
        base_url: of the collector, as ``http://localhost:4318``; None where the OTEL_EXPORTER_OTLP_*
            variables of the environment name it. Those for headers, timeout and certificates count in
            either case.
        distributions: sent with the metrics.
    """

    def __init__(self, base_url: str | None, distributions: Distributions) -> None:
        self._delivery = Delivery()
        logging.getLogger(_EXPORTER_LOG).setLevel(logging.CRITICAL + 1)
        logging.getLogger(_QUEUE_LOG).addFilter(self._is_news)
        base = base_url.rstrip("/") if base_url else None
        self._spans = OTLPSpanExporter(
            endpoint=f"{base}/v1/traces" if base else None, session=_WatchedSession(self._delivery)
        )
        self._metrics = _MetricExporter(
            distributions,
            endpoint=f"{base}/v1/metrics" if base else None,
            session=_WatchedSession(self._delivery),
        )

    def span_processor(self) -> BatchSpanProcessor:
        """Return what sends ended spans, in batches."""
        return BatchSpanProcessor(self._spans)

    def metric_reader(self) -> MetricReader:
        """Return what sends metrics, every 60 s unless OTEL_METRIC_EXPORT_INTERVAL says otherwise."""
        return PeriodicExportingMetricReader(self._metrics)

    def give_up(self) -> None:
        """Send nothing more, if nothing arrives anyway; call this before a last flush."""
        if self._delivery.failing:
            self._spans.shutdown()  # type: ignore[no-untyped-call]  # the SDK does not annotate it
            self._metrics.shutdown()

    def close(self) -> None:
        """Leave the library's log as it was; the last thing to be called."""
        logging.getLogger(_QUEUE_LOG).removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        del record
        return not self._delivery.failing


class _MetricExporter(OTLPMetricExporter):
    """Sends what the SDK read, and the distributions with it."""

    def __init__(self, distributions: Distributions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._distributions = distributions
        wish = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "").strip().upper()
        self._delta = Delta() if wish in _ASK_FOR_DELTAS else None

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = None, **kwargs: Any
    ) -> MetricExportResult:
        """Send one reading."""
        if self._delta is None:
            complete = self._distributions.complete(metrics_data)
        else:
            complete = self._distributions.complete(metrics_data, self._delta.of)
        return super().export(complete, timeout_millis, **kwargs)


class Delivery:
    """Whether telemetry arrives; logs when that changes."""

    def __init__(self) -> None:
        self.failing = False
        self._lock = threading.Lock()

    def failed(self, url: str, reason: str) -> None:
        """Something could not be delivered."""
        with self._lock:
            if self.failing:
                return
            self.failing = True
        _log.warning(
            "Telemetry does not reach %s (%s) and is dropped until it does; requests are served as before. "
            "Check telemetry.otlp_endpoint. This is said once.",
            without_credentials(url),
            reason,
        )

    def worked(self, url: str) -> None:
        """Something was delivered."""
        with self._lock:
            if not self.failing:
                return
            self.failing = False
        _log.info("Telemetry reaches %s again.", without_credentials(url))


class _WatchedSession(requests.Session):
    """Sends as any session does, and tells `Delivery` how it went."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__()
        self._delivery = delivery

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; see `requests.Session.request`."""
        where = str(url)
        try:
            response = super().request(method, url, *args, **kwargs)
        except requests.RequestException as error:
            self._delivery.failed(where, type(error).__name__)
            raise
        if response.status_code >= _FIRST_BAD_STATUS:
            self._delivery.failed(where, f"status {response.status_code}")
        else:
            self._delivery.worked(where)
        return response


def without_credentials(url: str) -> str:
    """Return ``url`` without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
