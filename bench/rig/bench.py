"""One run of the benchmarks: upstreams and subjects, started when first asked for, stopped together."""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.rig import load, nginx, peers, subjects
from bench.rig.process import BenchError, Process, cores, leave_when_told
from bench.rig.subjects import LONG_PACED, Subject, Traffic

_START: Final = 180.0
"""Seconds that a server may take to listen: ten times its own where valgrind runs it."""
_FEWEST: Final = 8
"""Calls that are measured at least, however long one takes."""
_WARM_UP: Final = 8
"""Of the calls that are measured one for so many is made before, unmeasured."""
_ENOUGH: Final = 0.7
"""Of the seconds that a run shall take: how many calls that are is known from what came before, colder."""
_STRIDE: Final = 8.0
"""How many times the calls of the last run the next one has, at most."""

ROUTER: Final = "router"
BARE: Final = "bare"
LITELLM: Final = "LiteLLM"
LEAN_LITELLM: Final = "lean LiteLLM"
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
        self.curves: dict[str, Sequence[tuple[int, float]]] = {}
        """What is plotted, by name: sizes, and what a call costs."""
        self._subjects: dict[str, Subject] = {}
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, int] = {}
        """How long each measure took."""
        self.left_out: dict[str, str] = {}
        """Why others are not measured, by name."""
        self._paced_port = 0
        self._counts: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        """Start the upstream.

        Raises:
            BenchError: it does not start.
        """
        leave_when_told()
        with ExitStack() as stack:
            self._stack = stack
            self._start()
            self._stack = stack.pop_all()
        return self

    def _start(self) -> None:
        os.sched_setaffinity(0, {self.other_core})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.nginx_port = free_port()
        self.started(nginx.start(self.folder, self.nginx_port, self.other_core), self.nginx_port)

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

    @property
    def paced(self) -> str:
        """The address of the upstream whose tokens come at a pace; see `bench.rig.paced`."""
        if not self._paced_port:
            self._paced_port = free_port()
            command = [sys.executable, "-m", "bench.rig.paced", "--port", str(self._paced_port)]
            process = Process("paced", command, self.other_core, self.folder, subjects.PYTHON)
            self.started(process, self._paced_port)
        return f"http://127.0.0.1:{self._paced_port}"

    def router(self) -> Subject:
        """Return the router, with a route for every kind of call that is answered at once."""
        if ROUTER not in self._subjects:
            names = {traffic.upstream or traffic.name for traffic in subjects.TRAFFIC}
            upstreams = {name: self.instant(name) for name in sorted(names)}
            self._subjects[ROUTER] = self.new_router(upstreams)
        return self._subjects[ROUTER]

    def new_router(
        self,
        upstreams: Mapping[str, str],
        change: Callable[[dict[str, Any]], None] = lambda _: None,
        *,
        under: Sequence[str] = (),
    ) -> Subject:
        """Start a router with a route for each upstream, whose configuration ``change`` may alter.

        ``under`` is a command that runs it.
        """
        port, http_port = free_port(), free_port()
        config = subjects.router_config(port, http_port, upstreams, self.otlp)
        change(config)
        name = f"router-{port}"
        command = [*under, *subjects.our_command(self.folder, config, name)]
        process = Process(name, command, self.core, self.folder, subjects.PYTHON)
        return Subject(ROUTER, self.started(process, port), port, self.folder, http_port=http_port)

    def bare(self, upstream: str, variant: str = BARE) -> Subject:
        """Return the bare pipeline in front of one upstream that answers at once."""
        name = f"{variant}-{upstream}"
        if name not in self._subjects:
            self._subjects[name] = self.new_bare(self.instant(upstream), variant)
        return self._subjects[name]

    def new_bare(self, upstream: str, variant: str = BARE, *, under: Sequence[str] = ()) -> Subject:
        """Start the bare pipeline in front of this upstream; ``under`` is a command that runs it."""
        port = free_port()
        name = f"{variant}-{port}"
        command = [*under, *subjects.bare_command(port, upstream, variant)]
        process = Process(name, command, self.core, self.folder, subjects.PYTHON)
        return Subject(name, self.started(process, port), port, self.folder)

    def peers(self) -> dict[str, Subject]:
        """Return the others that are installed and start, by name; `left_out` says why others do not."""
        if not self._with_peers:
            return {}
        upstreams = {name: self.instant(name) for name in ("unary", "stream", "embed", "floats")}
        upstreams |= {LONG_PACED.name: f"{self.paced}/{LONG_PACED.name}/v1"}
        starts: dict[str, Callable[[peers.Place], Subject]] = {
            LITELLM: partial(peers.litellm, otlp=f"{self.otlp}/{nginx.PEER}"),
            PORTKEY: peers.portkey,
        }
        if self.effort.thorough:
            starts[LEAN_LITELLM] = peers.lean_litellm
        for name, start in starts.items():
            if name in self._subjects or name in self.left_out:
                continue
            place = peers.Place(self.folder, self.core, free_port(), upstreams)
            try:
                subject = start(place)
                self.started(subject.process, place.port)
            except BenchError as error:
                self.left_out[name] = str(error)
                print(f"{name} is left out: {error}", file=sys.stderr)
            else:
                self._subjects[name] = subject
        return {name: self._subjects[name] for name in starts if name in self._subjects}

    def loaded(
        self,
        subject: Subject,
        traffic: Traffic,
        *,
        connections: int = 4,
        streams: int = 8,
        share: float = 1.0,
    ) -> load.Load:
        """Load a subject for as long as the effort says, or it needs itself, after a warm-up.

        ``share`` is how much of what the effort says is enough for one turn.
        """
        target = subject.target(traffic)
        least = subject.turn if traffic.path == subjects.UNARY.path else 0.0
        seconds = max(self.effort.seconds * share, least)
        run = partial(load.run, target, connections=connections, streams=streams)
        key = (subject.name, traffic.name)
        calls = self._counts.get(key, _FEWEST)
        # Who waited for its turn has lost its place in caches to the others, the more the more code it has.
        run(max(1, calls // _WARM_UP))
        done = run(calls)
        while done.cpu_seconds < seconds * _ENOUGH:
            calls = round(calls * min(seconds / done.cpu_seconds, _STRIDE))
            done = run(calls)
        self._counts[key] = calls
        return done


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(process: Process, port: int, longest: float = _START) -> None:
    """Return once something listens there.

    Raises:
        BenchError: the process ended, or takes too long.
    """
    until = time.monotonic() + longest
    while time.monotonic() < until:
        process.check_running()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise BenchError(f"{process.name} does not listen after {longest:g} s")
