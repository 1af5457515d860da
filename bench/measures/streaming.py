"""2: a stream whose 200 tokens arrive at once: CPU time per stream, and tokens per core."""

from __future__ import annotations

from bench.measures.unary import by_turns, figures, whole
from bench.rig.bench import BARE, LITELLM, ROUTER, Bench
from bench.rig.bodies import TOKENS
from bench.rig.finding import Finding, compared
from bench.rig.subjects import STREAM


def measure(bench: Bench) -> list[Finding]:
    """Return how much a stream costs."""
    loads = by_turns(bench, STREAM)
    cpu = figures(loads, lambda load: load.cpu_per_call)
    rates = figures(whole(loads), lambda load: TOKENS * load.calls_per_core)
    findings = [compared(2, "stream of 200 tokens: CPU", cpu, ROUTER, BARE, unit="µs", bound=1.5)]
    for peer in sorted(rates.keys() - {ROUTER, BARE}):
        bound = 100.0 if peer == LITELLM else None
        findings.append(
            compared(2, "stream: tokens per core", rates, ROUTER, peer, unit="/s", bound=bound, at_least=True)
        )
    by_the_clock = figures(whole(loads), lambda load: TOKENS * load.calls_per_second)
    words = "stream: tokens a second, 32 at once"
    others = sorted(rates.keys() - {ROUTER})
    return findings + [compared(2, words, by_the_clock, ROUTER, name, unit="/s") for name in others]
