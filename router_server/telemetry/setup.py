"""Puts telemetry together: which observers there are, where spans and metrics go, how all of it ends.

Sets no global provider, so that several can live in one process. Refuses to know the configuration file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from router_server.core.observer import Observer, RpcObserver
from router_server.core.reloads import Reloads
from router_server.telemetry import semconv
from router_server.telemetry.access_log import AccessLog, BreakerLog
from router_server.telemetry.budgets import Uses, nothing_budgeted, observe_budgets
from router_server.telemetry.copies import Copies, nothing_copied, observe_copies
from router_server.telemetry.distributions import Distributions
from router_server.telemetry.logs import LogFormat, Logs, configure
from router_server.telemetry.metrics import Metrics, Snapshot
from router_server.telemetry.moves import Moved, nobody_moved, observe_moves
from router_server.telemetry.passthrough import Passthrough
from router_server.telemetry.reloads import observe_reloads
from router_server.telemetry.shared import Shared, nothing_shared, observe_shared
from router_server.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from router_server.telemetry.export import Exporters

_DISTRIBUTION: Final = "modelrouter-grpc"
_DEFAULT_NAME: Final = "modelrouter"
_FLUSH_TIMEOUT: Final = 5.0
"""Seconds that a shutdown may wait for a collector."""
_LOG_TIMEOUT: Final = 1.0
"""Seconds that a shutdown may wait for standard error."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What the configuration says of telemetry.

    Attributes:
        service_name: the resource's ``service.name``; None: OTEL_SERVICE_NAME, else ``modelrouter``.
        otlp_endpoint: base URL of a collector that speaks OTLP/HTTP; None: OTEL_EXPORTER_OTLP_ENDPOINT,
            else no spans are made, and metrics are only to be fetched.
        sample_ratio: 0 to 1, the part of traces kept where the caller has not decided.
        record_content: whether messages go into spans.
        log_format: ``auto`` is text on a terminal and JSON elsewhere.
        log_level: debug, info, warning, error or critical.
    """

    service_name: str | None = None
    otlp_endpoint: str | None = None
    sample_ratio: float = 1.0
    record_content: bool = False
    log_format: LogFormat = "auto"
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The telemetry of one process.

    Attributes:
        observers: those of calls, to be given to `fan_out`.
        rpc_observers: those of RPCs, to be given to `fan_out_rpc`.
        registry: what `render` renders.
    """

    observers: tuple[Observer, ...]
    rpc_observers: tuple[RpcObserver, ...]
    registry: CollectorRegistry
    _flush: Callable[[], None]
    _logs: Logs

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics for Prometheus and their content type, as the Accept header ``accept`` wants.

        Takes milliseconds for many targets: call it on a thread.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def change_log(self, log_format: LogFormat, level: str) -> None:
        """Log in another form, or more or less than before."""
        self._logs.change(log_format, level)

    async def shutdown(self, within: float = _FLUSH_TIMEOUT) -> None:
        """Send what is still to be sent, for at most ``within`` seconds, then end the log."""
        if not await _finished(self._flush, within):
            _log.warning("The last telemetry was not sent within %.1f s and is lost.", within)
        await _finished(self._logs.close, _LOG_TIMEOUT)


async def _finished(work: Callable[[], None], within: float) -> bool:
    """Run ``work`` on a daemon thread and tell whether it ended in time.

    A daemon, because the interpreter would wait at its exit for a thread of an executor.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - the SDK raises bare exceptions, and there is nobody to catch them
            _log.exception("Telemetry could not be ended in order.")
        with contextlib.suppress(RuntimeError):  # the loop may have been closed while this was late
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="telemetry-end", daemon=True).start()
    try:
        async with asyncio.timeout(within):
            await done.wait()
    except TimeoutError:
        return False
    return True


def build(
    settings: TelemetrySettings,
    snapshot: Snapshot,
    shared: Shared = nothing_shared,
    copies: Copies = nothing_copied,
    reloads: Reloads | None = None,
    *,
    budgets: Uses = nothing_budgeted,
    moves: Moved = nobody_moved,
) -> Telemetry:
    """Start logging, metrics and traces.

    Args:
        settings: what the configuration says.
        snapshot: gives every target's state when metrics are read, on any thread.
        shared: gives how the shared state is, likewise.
        copies: gives what became of the copies of calls, likewise.
        reloads: what came of reading the configuration again; None: it never is.
        budgets: gives how much of each budget is used, likewise.
        moves: gives what became of users who are allotted to targets, likewise.
    """
    logs = configure(settings.log_format, settings.log_level)
    distributions = Distributions()
    exporters = _exporters(settings, distributions)
    resource = _resource(settings)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    meters = _meter_provider(resource, registry, exporters, distributions)
    meter = meters.get_meter(semconv.SCOPE, schema_url=semconv.SCHEMA_URL)
    metrics = Metrics(meter, distributions, snapshot)
    observe_shared(meter, shared)
    observe_copies(meter, copies)
    if reloads is not None:
        observe_reloads(meter, reloads)
    observe_budgets(meter, budgets)
    observe_moves(meter, moves)
    tracers = _tracer_provider(resource, exporters) if exporters else None
    tracing = _tracing(settings, tracers) if tracers else Passthrough()

    def flush() -> None:
        if exporters is not None:
            exporters.give_up()
        if tracers is not None:
            tracers.shutdown()
        meters.shutdown(timeout_millis=_FLUSH_TIMEOUT * 1000)
        if exporters is not None:
            exporters.close()

    return Telemetry(
        observers=(tracing, metrics, BreakerLog()),
        rpc_observers=(tracing, metrics, AccessLog(logs.say)),
        registry=registry,
        _flush=flush,
        _logs=logs,
    )


def _exporters(settings: TelemetrySettings, distributions: Distributions) -> Exporters | None:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not settings.otlp_endpoint and not any(map(os.environ.get, names)):
        return None
    from router_server.telemetry.export import Exporters  # noqa: PLC0415 - 0.3 s that others can spare

    return Exporters(settings.otlp_endpoint, distributions)


def _resource(settings: TelemetrySettings) -> Resource:
    name = settings.service_name or os.environ.get("OTEL_SERVICE_NAME") or _DEFAULT_NAME
    return Resource.create(
        {
            semconv.SERVICE_NAME: name,
            semconv.SERVICE_VERSION: _version(),
            semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        }
    )


def _meter_provider(
    resource: Resource,
    registry: CollectorRegistry,
    exporters: Exporters | None,
    distributions: Distributions,
) -> MeterProvider:
    readers: list[MetricReader] = [_PrometheusReader(registry, distributions)]
    if exporters is not None:
        readers.append(exporters.metric_reader())
    return MeterProvider(readers, resource, shutdown_on_exit=False)


class _PrometheusReader(PrometheusMetricReader):
    """Reads the SDK's metrics, and the distributions with them."""

    def __init__(self, registry: CollectorRegistry, distributions: Distributions) -> None:
        super().__init__(registry=registry, scope_info_enabled=False)
        self._distributions = distributions

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        super()._receive_metrics(self._distributions.complete(metrics_data), timeout_millis, **kwargs)


def _tracer_provider(resource: Resource, exporters: Exporters) -> TracerProvider:
    # Which of the traces that begin here are kept is decided before a span of them is begun.
    provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    provider.add_span_processor(exporters.span_processor())
    return provider


def _tracing(settings: TelemetrySettings, tracers: TracerProvider) -> Tracing:
    tracer = tracers.get_tracer(semconv.SCOPE, schema_url=semconv.SCHEMA_URL)
    return Tracing(tracer, settings.sample_ratio, record_content=settings.record_content)


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
