"""6: 64 vectors of 1,536 numbers: as bytes over copying a buffer that is ready, and as floats."""

from __future__ import annotations

from bench.measures.unary import Loads, by_turns, figures, turns_of, whole
from bench.rig.bench import BARE, LITELLM, ROUTER, Bench
from bench.rig.finding import Finding, compared
from bench.rig.subjects import EMBED_BYTES, EMBED_FLOATS

COPY = "a ready buffer"
READY = "a buffer with no upstream"


def measure(bench: Bench) -> list[Finding]:
    """Return how much vectors cost."""
    buffers = {
        COPY: bench.bare("copy", variant="unmerged"),
        READY: bench.bare("copy", variant="echo"),
    }
    copies = turns_of(bench, EMBED_BYTES, {ROUTER: bench.router(), **buffers}, {})
    as_bytes, floats = by_turns(bench, EMBED_BYTES), by_turns(bench, EMBED_FLOATS)
    found = [
        compared(6, "embed, bytes: CPU", _cpu(copies), ROUTER, COPY, unit="µs", bound=1.5),
        compared(6, "embed, bytes: CPU", _cpu(copies), ROUTER, READY, unit="µs"),
        compared(6, "embed, bytes: CPU", _cpu(as_bytes), ROUTER, BARE, unit="µs"),
        compared(6, "embed, floats: CPU", _cpu(floats), ROUTER, BARE, unit="µs", bound=1.35),
    ]
    for what, loads in (("bytes", as_bytes), ("floats", floats)):
        if LITELLM in loads:
            rates = figures(whole(loads), lambda load: load.calls_per_core)
            words = f"embed, {what}: calls per core"
            found.append(compared(6, words, rates, ROUTER, LITELLM, unit="/s", bound=10.0, at_least=True))
    return found


def _cpu(loads: Loads) -> dict[str, list[float]]:
    return figures(loads, lambda load: load.cpu_per_call)
