"""One run of the benchmarks: upstreams and subjects, started when first asked for, stopped together."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.rig import load, nginx, peers, subjects
from bench.rig.process import BenchError, Process, cores
from bench.rig.subjects import Subject, Traffic

_START: Final = 90.0
"""Seconds that a server may take to listen."""

ROUTER: Final = "router"
BARE: Final = "bare"
LITELLM: Final = "LiteLLM"
PORTKEY: Final = "Portkey"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done.

    Attributes:
        repeats: of everything; medians count.
        seconds: of CPU time that one run of load shall take.
        thorough: also what takes long.
    """

    repeats: int = 3
    seconds: float = 1.5
    thorough: bool = False


class Bench:
    """Everything that a run needs.

    Args:
        effort: how much is done.
        peers: measure others too, if they are installed.
    """

    def __init__(self, effort: Effort, *, peers: bool = True) -> None:
        self.effort = effort
        self.core, self.other_core = cores()
        self._with_peers = peers
        self._stack = ExitStack()
        self._subjects: dict[str, Subject] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        """Start the upstream."""
        os.sched_setaffinity(0, {self.other_core})
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.nginx_port = free_port()
        self.started(nginx.start(self.folder, self.nginx_port, self.other_core), self.nginx_port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._stack.close()

    def started(self, process: Process, port: int) -> Process:
        """Return the process once it listens; it stops with the run."""
        self._stack.enter_context(process)
        wait_for_port(process, port)
        return process

    def instant(self, name: str) -> str:
        """Return the base URL of the upstream that answers that kind of call at once."""
        return f"http://127.0.0.1:{self.nginx_port}/{name}/v1"

    @property
    def otlp(self) -> str:
        """Where traces and metrics are sent."""
        return f"http://127.0.0.1:{self.nginx_port}"

    def router(self) -> Subject:
        """Return the router, with a route for every kind of call."""
        if ROUTER not in self._subjects:
            upstreams = {traffic.name: self.instant(traffic.name) for traffic in subjects.TRAFFIC}
            port, http_port = free_port(), free_port()
            config = subjects.router_config(port, http_port, upstreams, self.otlp)
            process = subjects.ours(self.folder, self.core, config)
            self._subjects[ROUTER] = Subject(ROUTER, self.started(process, port), port, self.folder)
        return self._subjects[ROUTER]

    def bare(self, upstream: str, variant: str = BARE) -> Subject:
        """Return the bare pipeline in front of one upstream."""
        name = f"{variant}-{upstream}"
        if name not in self._subjects:
            port = free_port()
            process = subjects.bare(self.folder, self.core, port, self.instant(upstream), variant)
            self._subjects[name] = Subject(name, self.started(process, port), port, self.folder)
        return self._subjects[name]

    def peers(self) -> dict[str, Subject]:
        """Return the others that are installed, by name."""
        if not self._with_peers:
            return {}
        upstreams = {name: self.instant(name) for name in ("unary", "stream", "embed", "floats")}
        for name, start in ((LITELLM, peers.litellm), (PORTKEY, peers.portkey)):
            if name not in self._subjects:
                port = free_port()
                subject = start(self.folder, self.core, port, upstreams)
                if subject is not None:
                    self.started(subject.process, port)
                    self._subjects[name] = subject
        return {name: self._subjects[name] for name in (LITELLM, PORTKEY) if name in self._subjects}

    def loaded(
        self, subject: Subject, traffic: Traffic, *, connections: int = 4, streams: int = 8
    ) -> load.Load:
        """Load a subject for as long as the effort says, after as much as shows how long that is."""
        target = subject.target(traffic)
        key = (subject.name, traffic.name)
        if key not in self._counts:
            load.run(target, 32, connections=connections, streams=streams)
            trial = load.run(target, 64, connections=connections, streams=streams)
            wanted = self.effort.seconds / max(trial.cpu_seconds / trial.calls, 1e-5)
            self._counts[key] = max(64, round(wanted / 32) * 32)
        return load.run(target, self._counts[key], connections=connections, streams=streams)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(process: Process, port: int) -> None:
    """Return once something listens there.

    Raises:
        BenchError: the process ended, or takes too long.
    """
    until = time.monotonic() + _START
    while time.monotonic() < until:
        process.check_running()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise BenchError(f"{process.name} does not listen after {_START:g} s")
