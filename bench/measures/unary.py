"""1: a unary call whose upstream answers at once: CPU time per call, and calls per core."""

from __future__ import annotations

from functools import partial

from bench.rig.bench import BARE, LEAN_LITELLM, LITELLM, PORTKEY, ROUTER, Bench
from bench.rig.finding import Finding, compared, interleaved
from bench.rig.load import Load
from bench.rig.subjects import UNARY, Traffic

ECHO = "echo"


def measure(bench: Bench) -> list[Finding]:
    """Return how much a call costs."""
    loads = by_turns(bench, UNARY)
    cpu = {name: [load.cpu_per_call for load in runs] for name, runs in loads.items()}
    rates = {name: [load.calls_per_core for load in runs] for name, runs in loads.items()}
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
    by_the_clock = {name: [load.calls_per_second for load in runs] for name, runs in loads.items()}
    words = "unary: throughput, 32 at once"
    return findings + [compared(1, words, by_the_clock, ROUTER, name, unit="/s") for name in (BARE, *peers)]


def by_turns(bench: Bench, traffic: Traffic) -> dict[str, list[Load]]:
    """Return the loads of everyone who can answer, in turn."""
    everyone = {ROUTER: bench.router(), BARE: bench.bare(traffic.upstream or traffic.name)}
    if traffic is UNARY:
        everyone[ECHO] = bench.bare(traffic.name, variant=ECHO)
    # Portkey's gateway answers the other kinds with 500, or not at all.
    answering = {LITELLM, PORTKEY} if traffic is UNARY else {LITELLM}
    if traffic.path == UNARY.path:
        answering.add(LEAN_LITELLM)
    everyone |= {name: peer for name, peer in bench.peers().items() if name in answering}
    runs = {name: partial(bench.loaded, subject, traffic) for name, subject in everyone.items()}
    return interleaved(runs, bench.effort.repeats)
