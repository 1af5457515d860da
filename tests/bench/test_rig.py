"""The benchmarks' own parts: figures are compared as they say, and the clients see what servers send."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.measures.growth import per_byte, steepest
from bench.measures.paced import Stutter, is_smooth, most_streams
from bench.measures.unary import whole
from bench.rig import bodies, load, subjects
from bench.rig.bench import free_port, wait_for_port
from bench.rig.clients import client
from bench.rig.finding import Finding, compared, interleaved, table
from bench.rig.load import Load
from bench.rig.process import BenchError, Process
from bench.rig.subjects import PACED, Traffic, direct

CORE = min(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("ratio", "at_least", "passed"),
    [(1.5, False, True), (1.6, False, False), (1.5, True, True), (1.4, True, False)],
)
def test_a_bound_is_a_most_or_a_least(ratio: float, at_least: bool, passed: bool) -> None:
    finding = Finding(1, "x", ratio, 1.5, at_least)
    assert finding.passed is passed
    assert ("pass" if passed else "FAIL") in table([finding])


def test_a_ratio_is_the_median_of_the_turns_ratios() -> None:
    # The machine was twice as slow in the second turn, and disturbed one alone in the third.
    series = {"ours": [2.0, 4.0, 30.0], "bare": [1.0, 2.0, 1.0]}
    assert compared(1, "x", series, "ours", "bare", unit="µs").ratio == 2.0


def test_short_turns_count_as_one_over_somebody_slow() -> None:
    ours = [Load(10, 1.0, number, 0) for number in (1.0, 2.0, 3.0, 4.0)]
    loads = {"ours": ours, "slow": [Load(1, 1.0, 1.0, 0)] * 2}
    assert whole(loads) == {
        "ours": [Load(20, 2.0, 3.0, 0), Load(20, 2.0, 7.0, 0)],
        "slow": [Load(1, 1.0, 1.0, 0)] * 2,
    }


def test_turns_begin_with_another_each_time() -> None:
    order: list[str] = []
    interleaved({name: lambda name=name: order.append(name) for name in "abc"}, 2)  # type: ignore[misc]
    assert "".join(order) == "abcbca"


@pytest.mark.parametrize(("carried", "guess"), [(100, 20), (100, 100), (100, 450), (3, 1), (1, 16)])
def test_the_search_ends_a_tenth_below_what_is_carried(carried: int, guess: int) -> None:
    found = most_streams(lambda streams: streams <= carried, guess)
    assert carried / 1.1 - 1 <= found <= carried


@pytest.mark.parametrize(
    ("tries", "smooth", "tried"),
    [
        ([Stutter(0.001, 0.0)], True, 1),
        ([Stutter(0.1, 0.0), Stutter(0.001, 0.0)], True, 2),
        ([Stutter(0.1, 0.0), Stutter(0.1, 0.0)], False, 2),
        ([Stutter(0.001, 0.5)], False, 1),
    ],
    ids=["smooth", "disturbed once", "stutters", "falls behind"],
)
def test_one_disturbance_is_not_taken_for_a_stutter(tries: list[Stutter], smooth: bool, tried: int) -> None:
    left = iter(tries)
    assert is_smooth(lambda: next(left)) is smooth
    assert len(tries) - len(list(left)) == tried


def test_a_search_from_where_the_last_one_ended_is_short() -> None:
    asked: list[int] = []

    def carried(streams: int) -> bool:
        asked.append(streams)
        return streams <= 100

    assert most_streams(carried, 98, 1.1) == 98
    assert asked == [98, 107]


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.rig.paced", "--port", str(port)]
    with Process("paced", command, CORE, tmp_path, subjects.PYTHON) as process:
        wait_for_port(process, port)
        yield f"http://127.0.0.1:{port}"


class Kept:
    def __init__(self) -> None:
        self.body = b""
        self.error: str | None = None
        self.over = asyncio.Event()

    def data(self, chunk: bytes) -> None:
        self.body += chunk

    def end(self, error: str | None) -> None:
        self.error = error
        self.over.set()


async def test_a_paced_stream_reaches_the_http1_client_whole(paced: str, tmp_path: Path) -> None:
    target = direct(tmp_path, f"{paced}/paced-1-5/v1", PACED)
    async with client(target, 2) as server:
        answers = [Kept(), Kept()]
        for answer in answers:
            server.ask(target.body.read_bytes(), answer)
        for answer in answers:
            await answer.over.wait()
            assert answer.error is None
            assert answer.body.count(b" @") == 5
            assert b"[DONE]" in answer.body


async def test_calls_through_the_bare_pipeline_reach_the_http2_client(paced: str, tmp_path: Path) -> None:
    port = free_port()
    upstream = f"{paced}/paced-1-5/v1"
    with subjects.bare(tmp_path, CORE, port, upstream, "bare") as process:
        wait_for_port(process, port)
        subject = subjects.Subject("bare", process, port, tmp_path)
        target = subject.target(PACED)
        async with client(target, 3) as server:
            answers = [Kept() for _ in range(3)]
            for answer in answers:
                server.ask(target.body.read_bytes(), answer)
            for answer in answers:
                await answer.over.wait()
                assert answer.error is None
                assert answer.body.count(b" @") == 5
        large = Traffic("x", "StreamChat", bodies.framed(bodies.chat("x", 100_000)), "", b"")
        async with client(subject.target(large), 1) as server:
            answer = Kept()
            server.ask(large.grpc, answer)
            await answer.over.wait()
            assert answer.error is None
        assert process.cpu_seconds() > 0
        assert process.resident_bytes() > 1_000_000


async def test_a_failed_call_is_told(paced: str, tmp_path: Path) -> None:
    port = free_port()
    with subjects.bare(tmp_path, CORE, port, f"{paced}/paced-1-5/v1", "bare") as process:
        wait_for_port(process, port)
        unknown = Traffic("x", "Nothing", bodies.framed(bodies.chat("x")), "", b"")
        async with client(subjects.Subject("bare", process, port, tmp_path).target(unknown), 1) as server:
            answer = Kept()
            server.ask(unknown.grpc, answer)
            await answer.over.wait()
            assert answer.error is not None
            assert answer.error.startswith("12:")


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Process("x", [sys.executable, "-c", "raise SystemExit('no luck')"], CORE, tmp_path) as process:
        process.wait(30)
        with pytest.raises(BenchError, match="no luck"):
            process.check_running()
        with pytest.raises(BenchError, match="no luck"):
            process.cpu_seconds()


@pytest.mark.parametrize(("calls", "least", "kept"), [(4, 25, True), (4, 26, False), (5, 1, False)])
def test_a_call_that_is_answered_with_too_little_has_failed(calls: int, least: int, kept: bool) -> None:
    # Calls that fail in gRPC have HTTP's status 200: h2load counts them as answered.
    said = "finished in 2.00s, 2 req/s\nstatus codes: 4 2xx, 0 3xx\ntraffic: 1KB (999) total, 100B (100) data"
    if kept:
        done = load.read(said, calls, 0.5, least)
        assert (done.calls_per_second, done.calls_per_core) == (2.0, 8.0)
        return
    with pytest.raises(BenchError, match="answered"):
        load.read(said, calls, 0.5, least)


_SERVING = """
import os, sys, time
from pathlib import Path
from bench.rig.process import Process, leave_when_told
leave_when_told()
core, command = min(os.sched_getaffinity(0)), [sys.executable, "-c", "import time; time.sleep(600)"]
with Process("idle", command, core, Path(sys.argv[1])) as idle:
    print(idle.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_server_is_left_over_when_a_run_is_ended(tmp_path: Path, told: signal.Signals) -> None:
    command = [sys.executable, "-c", _SERVING, str(tmp_path)]
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout is not None
        server = int(run.stdout.readline())
        assert psutil.pid_exists(server)
        run.send_signal(told)
        assert run.wait(30) != 0
    assert not psutil.pid_exists(server)


def test_a_measure_that_does_not_exist_is_told() -> None:
    command = [sys.executable, "-m", "bench", "--only", "unary,unarry"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - as above
    assert run.returncode == 2
    assert "no such measure: unarry; there are unary, streaming" in run.stderr


def test_costs_that_grow_with_the_square_are_seen_behind_what_any_call_costs() -> None:
    linear = [(size, 500 + size / 400) for size in (1_000, 10_000, 100_000, 1_000_000)]
    square = [(size, 500 + size * size / 1e9) for size, _ in linear]
    assert max(steepest(linear), steepest(square)) < 1.0
    assert per_byte(linear) == pytest.approx(1.0)
    assert per_byte(square) == pytest.approx(10.0, rel=0.02)
