from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.telemetry.collector import Collector, collector


@pytest.fixture(autouse=True)
def _no_collector_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    assert root.handlers == handlers, "a test left its log configured"
    assert root.level == level


@pytest.fixture
async def otlp() -> AsyncIterator[Collector]:
    async with collector() as received:
        yield received
