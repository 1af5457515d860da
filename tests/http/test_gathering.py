from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from router_server.http.gathering import WorkerMetrics
from router_server.http.metrics_sum import parsed
from router_server.http.server import Exposition, HttpServer

WORKER = """\
# TYPE modelrouter_attempts_total counter
modelrouter_attempts_total{{target="a"}} {attempts}
# TYPE modelrouter_inflight gauge
modelrouter_inflight{{target="a"}} {inflight}
"""


class Worker:
    """A worker's own /metrics on a Unix socket: tells ``text``, or nothing at all while that is None."""

    def __init__(self, socket: Path, text: str | None) -> None:
        self.socket = socket
        self.text = text

    async def metrics(self, _accept: str) -> Exposition:
        if self.text is None:
            await asyncio.Event().wait()
        return (self.text or "").encode(), "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serving(worker: Worker) -> AsyncIterator[Worker]:
    server = HttpServer(worker.metrics, lambda: True)
    await server.listen_on_socket(worker.socket)
    try:
        yield worker
    finally:
        await server.close()


async def values(workers: WorkerMetrics) -> Mapping[str, float]:
    body, content_type = await workers.gather("")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {sample.name: sample.value for family in parsed(body.decode()) for sample in family.samples}


async def test_the_sum_comes_from_the_workers_that_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="router_server.http.gathering")
    text = WORKER.format(attempts=2, inflight=1)
    async with (
        serving(Worker(tmp_path / "one", text)) as one,
        serving(Worker(tmp_path / "silent", None)) as silent,
        serving(Worker(tmp_path / "two", text)) as two,
        serving(Worker(tmp_path / "mad", "modelrouter{ no exposition")) as mad,
    ):
        sockets = [one.socket, silent.socket, two.socket, mad.socket, tmp_path / "gone"]
        workers = WorkerMetrics(sockets, patience=0.2)
        found = await values(workers)
        await values(workers)

    assert found["modelrouter_attempts_total"] == 4
    assert found["modelrouter_inflight"] == 2
    assert found["modelrouter_workers_unreachable"] == 3
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 3, "once for each, not at every scrape"
    assert {message.split()[3] for message in warned} == {"silent", "mad", "gone"}


async def test_silence_takes_a_workers_gauges_and_not_its_counters(tmp_path: Path) -> None:
    async with (
        serving(Worker(tmp_path / "one", WORKER.format(attempts=10, inflight=1))) as one,
        serving(Worker(tmp_path / "two", WORKER.format(attempts=100, inflight=5))) as two,
    ):
        workers = WorkerMetrics([one.socket, two.socket], patience=0.2)
        before = await values(workers)
        two.text = None
        one.text = WORKER.format(attempts=11, inflight=1)
        during = await values(workers)
        two.text = WORKER.format(attempts=105, inflight=3)
        after = await values(workers)

    seen = [
        (each["modelrouter_attempts_total"], each["modelrouter_inflight"]) for each in (before, during, after)
    ]
    assert seen == [(110, 6), (111, 1), (116, 4)]
    missing = [each["modelrouter_workers_unreachable"] for each in (before, during, after)]
    assert missing == [0, 1, 0]


async def test_openmetrics_over_http_and_compressed(tmp_path: Path) -> None:
    async with serving(Worker(tmp_path / "one", WORKER.format(attempts=2, inflight=1))) as one:
        parent = HttpServer(WorkerMetrics([one.socket]).gather, lambda: True)
        port = await parent.listen("127.0.0.1", 0)
        headers = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(f"http://127.0.0.1:{port}/metrics", headers=headers) as response,
        ):
            body = gzip.decompress(await response.read())
            content_type = response.headers["Content-Type"]
        await parent.close()

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # it has no annotations
    assert {family.name for family in families} >= {"modelrouter_attempts", "modelrouter_workers_unreachable"}
