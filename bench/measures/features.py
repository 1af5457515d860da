"""0: that the router was measured with its default features on: what it logged, counted and exported."""

from __future__ import annotations

import re
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import Final

from bench.rig import load, nginx
from bench.rig.bench import LITELLM, Bench
from bench.rig.finding import Finding
from bench.rig.process import Process
from bench.rig.subjects import UNARY, Subject

_CALLS: Final = 1_000
"""One in a hundred is traced: that none of so many is happens once in 23,000 runs."""

_ATTEMPTS: Final = re.compile(
    rb'^modelrouter_attempts_total{outcome="ok",target="unary"} (\S+)', re.MULTILINE
)
_ACCESS: Final = b'"logger":"router_server.access"'

_LONGEST: Final = 15.0
"""Seconds; traces leave every 5 s, lines of the log at once."""


def measure(bench: Bench) -> list[Finding]:
    """Return how many lines the access log has for each call, and how often traces were exported."""
    router = bench.router()
    exports, lines = nginx.exports(bench.folder, "traces"), _lines(router.process)
    counted = _attempts(router)
    load.run(router.target(UNARY), _CALLS)
    until = time.monotonic() + _LONGEST
    while time.monotonic() < until and nginx.exports(bench.folder, "traces") == exports:
        time.sleep(0.1)
    logged = _lines(router.process) - lines
    found = [
        _shown("access log: lines a call", logged / _CALLS),
        _shown("metrics: attempts a call", (_attempts(router) - counted) / _CALLS),
        _answered(router.process),
        _shown("traces: batches exported", nginx.exports(bench.folder, "traces")),
    ]
    if LITELLM in bench.peers():
        batches = nginx.exports(bench.folder, "traces", nginx.PEER)
        found.append(_shown("traces of LiteLLM: batches exported", batches))
    return found


def _shown(words: str, count: float) -> Finding:
    return Finding(0, f"on while measured: {words}", count, 1.0, at_least=True, against="")


def _answered(process: Process) -> Finding:
    """Return of how many calls, of all that the router of 1, 2, 4 and 6 had in this run, the code is OK."""
    log = process.log.read_bytes()
    lines = [line for line in log.splitlines() if _ACCESS in line]
    share = sum(b'"code":"OK"' in line for line in lines) / len(lines)
    return Finding(0, "calls of the router that were answered: share", share, 1.0, at_least=True, against="")


def _attempts(router: Subject) -> float:
    """Return how many attempts at a unary call the router's metrics have counted as well ended."""
    connection = HTTPConnection("127.0.0.1", router.http_port, timeout=_LONGEST)
    with closing(connection):
        connection.request("GET", "/metrics")
        found = _ATTEMPTS.search(connection.getresponse().read())
    return float(found[1]) if found else 0.0


def _lines(process: Process) -> int:
    return process.log.read_bytes().count(_ACCESS)
