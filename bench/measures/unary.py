"""1: a unary call whose upstream answers at once: CPU time per call, and calls per core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from operator import add
from typing import Final

from bench.rig.bench import BARE, LEAN_LITELLM, LITELLM, PORTKEY, ROUTER, Bench
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.load import Load
from bench.rig.subjects import UNARY, Subject, Traffic

ECHO = "echo"

Loads = Mapping[str, list[Load]]

_PARTS: Final = 3
"""Short turns in place of one long: what slows the machine down for a moment spoils fewer of the ratios."""


def measure(bench: Bench) -> list[Finding]:
    """Return how much a call costs."""
    loads = by_turns(bench, UNARY)
    cpu = figures(loads, lambda load: load.cpu_per_call)
    rates = figures(whole(loads), lambda load: load.calls_per_core)
    findings = [
        compared(1, "unary: CPU per call", cpu, ROUTER, BARE, unit="µs", bound=1.35),
        compared(1, "the bare pipeline over an echo", cpu, BARE, ECHO, unit="µs"),
    ]
    peers = sorted(rates.keys() - {ROUTER, BARE, ECHO})
    for peer in peers:
        bound = 20.0 if peer == LITELLM else None
        findings.append(
            compared(1, "unary: calls per core", rates, ROUTER, peer, unit="/s", bound=bound, at_least=True)
        )
    by_the_clock = figures(whole(loads), lambda load: load.calls_per_second)
    words = "unary: throughput, 32 at once"
    return findings + [compared(1, words, by_the_clock, ROUTER, name, unit="/s") for name in (BARE, *peers)]


def by_turns(bench: Bench, traffic: Traffic) -> Loads:
    """Return the loads of everyone who can answer, in turn: three times as many of those who are quick."""
    quick = {ROUTER: bench.router(), BARE: bench.bare(traffic.upstream or traffic.name)}
    if traffic is UNARY:
        quick[ECHO] = bench.bare(traffic.name, variant=ECHO)
    # Portkey's gateway answers the other kinds with 500, or not at all.
    answering = {LITELLM, PORTKEY} if traffic is UNARY else {LITELLM}
    if traffic.path == UNARY.path:
        answering.add(LEAN_LITELLM)
    peers = {name: peer for name, peer in bench.peers().items() if name in answering}
    return turns_of(bench, traffic, quick, peers)


def turns_of(
    bench: Bench, traffic: Traffic, quick: Mapping[str, Subject], slow: Mapping[str, Subject]
) -> Loads:
    """Return the loads of these, in turn: of the ``quick`` several short ones each time."""
    runs = {
        name: partial(bench.loaded, subject, traffic, share=1 / _PARTS) for name, subject in quick.items()
    }
    found: dict[str, list[Load]] = {name: [] for name in (*quick, *slow)}
    for _ in range(bench.effort.repeats):
        for name, loads in interleaved(runs, _PARTS).items():
            found[name] += loads
        for name, subject in slow.items():
            found[name].append(bench.loaded(subject, traffic))
    return found


def whole(loads: Loads) -> Loads:
    """Return one load for each repeat: what its short turns came to together."""
    repeats = min(map(len, loads.values()))
    return {name: _sums(runs, len(runs) // repeats) for name, runs in loads.items()}


def _sums(runs: Sequence[Load], size: int) -> list[Load]:
    return [reduce(add, runs[at : at + size]) for at in range(0, len(runs), size)]


def figures(loads: Loads, figure: Callable[[Load], float]) -> dict[str, list[float]]:
    """Return one figure of every load."""
    return {name: [figure(load) for load in runs] for name, runs in loads.items()}
