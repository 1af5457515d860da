from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry import metrics, trace

from router_server.telemetry import Telemetry, TelemetrySettings, build
from tests.telemetry.collector import Collector
from tests.telemetry.driver import FIRST, METHOD, SECOND, answered, drive, failed


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def serve(telemetry: Telemetry, calls: int = 1) -> None:
    for _ in range(calls):
        drive(telemetry, failed(FIRST), answered(SECOND))


@pytest.fixture
def refused() -> Iterator[str]:
    """An address at which nobody listens, and nobody else will: it is bound and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@asynccontextmanager
async def silent_collector() -> AsyncIterator[str]:
    """Accepts connections and never answers."""
    gone = asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        gone.set()
        server.close()


@asynccontextmanager
async def refusing_collector(status: int) -> AsyncIterator[str]:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/{tail:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://user:hunter2hunter2@{host}:{port}"
    finally:
        await runner.cleanup()


async def test_a_collector_that_is_away_is_one_warning(
    refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry = build(TelemetrySettings(otlp_endpoint=refused, log_format="json"), tuple)
    began = time.monotonic()
    serve(telemetry, 1000)
    serving = time.monotonic() - began
    await telemetry.shutdown()
    took = time.monotonic() - began

    (warning,) = [line["message"] for line in logged(capsys) if line["logger"] != "router_server.access"]
    assert warning.startswith(f"Telemetry does not reach {refused}/v1/")
    assert "(ConnectionError)" in warning
    assert took - serving < 5


async def test_a_collector_that_never_answers_delays_a_shutdown_by_what_it_may(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    before = set(threading.enumerate())
    async with silent_collector() as url:
        telemetry = build(TelemetrySettings(otlp_endpoint=url, log_format="json"), tuple)
        serve(telemetry)
        began = time.monotonic()
        await telemetry.shutdown(within=0.3)
        took = time.monotonic() - began
    late = [thread for thread in threading.enumerate() if thread not in before]
    for thread in late:
        await asyncio.to_thread(thread.join, 30)

    assert 0.3 <= took < 3
    assert any(thread.name == "telemetry-end" for thread in late)
    assert logged(capsys)[-1]["message"] == "The last telemetry was not sent within 0.3 s and is lost."


async def test_a_collector_that_refuses_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with refusing_collector(401) as url:
        telemetry = build(TelemetrySettings(otlp_endpoint=url, log_format="json"), tuple)
        serve(telemetry)
        await telemetry.shutdown()

    text = capsys.readouterr().err
    (warning,) = [line for line in map(json.loads, text.splitlines()) if line["level"] == "warning"]
    assert "(status 401)" in warning["message"]
    assert url.partition("@")[2] in warning["message"]
    assert "user" not in text
    assert "hunter2" not in text


async def test_the_environment_counts_where_the_configuration_says_nothing(
    otlp: Collector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    telemetry = build(TelemetrySettings(log_format="json"), tuple)
    serve(telemetry)
    await telemetry.shutdown()

    assert otlp.span(METHOD)
    assert "modelrouter.attempts" in otlp.metrics
    assert otlp.headers[0]["x-tenant"] == "blue"
    assert otlp.resources[0]["service.name"] == "from-the-environment"
    assert {line["logger"] for line in logged(capsys)} == {"router_server.access"}


async def test_the_configuration_counts_before_the_environment(
    otlp: Collector, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", refused)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    settings = TelemetrySettings("configured", f"{otlp.url}/", log_format="json", log_level="critical")
    telemetry = build(settings, tuple)
    serve(telemetry)
    await telemetry.shutdown()

    assert otlp.resources[0]["service.name"] == "configured"


async def test_without_both_it_is_called_modelrouter() -> None:
    telemetry = build(TelemetrySettings(log_format="json", log_level="critical"), tuple)
    serve(telemetry)
    body = telemetry.render()[0].decode()
    await telemetry.shutdown()

    assert 'service_name="modelrouter"' in body


async def test_the_access_line_and_the_span_have_one_trace_id(
    otlp: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry = build(TelemetrySettings(otlp_endpoint=otlp.url, log_format="json"), tuple)
    serve(telemetry)
    await telemetry.shutdown()

    (line,) = logged(capsys)
    assert line["trace_id"] == otlp.span(METHOD).trace_id.hex()


def test_nothing_of_otlp_is_loaded_without_a_collector() -> None:
    program = """
import sys
from router_server.telemetry import TelemetrySettings, build
build(TelemetrySettings(log_format="json"), tuple)
unwanted = {"requests", "rich", "grpc", "aiohttp"}
print(sorted(name for name in sys.modules if name in unwanted or "otlp" in name))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the program above

    assert done.stdout == "[]\n"
    assert not done.stderr


async def test_no_global_provider_is_set(otlp: Collector) -> None:
    before = trace.get_tracer_provider(), metrics.get_meter_provider()
    telemetry = build(TelemetrySettings(otlp_endpoint=otlp.url, log_format="json"), tuple)
    after = trace.get_tracer_provider(), metrics.get_meter_provider()
    await telemetry.shutdown()

    assert after == before
