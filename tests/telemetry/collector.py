"""An OTLP/HTTP collector on a real socket that decodes what it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.secrecy import must_not_show


@dataclass
class Collector:
    url: str = ""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    scopes: set[tuple[str, str]] = field(default_factory=set)

    def span(self, name: str) -> Span:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def everything(self) -> str:
        return "".join(map(str, [*self.spans, *self.metrics.values(), *self.resources]))

    async def traces(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            self.resources.append(attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.scopes.add((scope.scope.name, scope.schema_url))
                self.spans.extend(scope.spans)
        return _answer(ExportTraceServiceResponse().SerializeToString())

    async def receive_metrics(self, request: web.Request) -> web.Response:
        export = ExportMetricsServiceRequest.FromString(await request.read())
        for resource in export.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics.update({metric.name: metric for metric in scope.metrics})
        return _answer(ExportMetricsServiceResponse().SerializeToString())


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    received = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", received.traces)
    app.router.add_post("/v1/metrics", received.receive_metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    received.url = f"http://{host}:{port}"
    try:
        yield received
    finally:
        await runner.cleanup()
    must_not_show("telemetry", received.everything(), received.headers)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in _typed(pairs)}


def value(wire: AnyValue) -> Any:
    kind = wire.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in wire.array_value.values]
    return getattr(wire, kind) if kind else None


def _typed(pairs: Any) -> list[KeyValue]:
    return list(pairs)


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/x-protobuf")
