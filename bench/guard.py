"""The guard against slow growth: a unary call's CPU time over the bare pipeline's, in under a minute.

Many short turns in place of a few long ones: on a machine that others use as well, the median of the
turns' ratios still says what is ours. It fails beyond 1.6; what is promised is 1.35 (see bench/README.md).
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import median
from typing import Final

from bench.rig.bench import Bench, Effort
from bench.rig.finding import interleaved
from bench.rig.process import BenchError
from bench.rig.subjects import UNARY

_MOST: Final = 1.6
_TURNS: Final = 15
_CPU_SECONDS: Final = 0.4


def main() -> int:
    """Return 0 while the router costs no more than it may, 1 where it does, 2 where nothing was measured."""
    try:
        with Bench(Effort(_TURNS, _CPU_SECONDS), peers=False) as bench:
            everyone = {"router": bench.router(), "bare": bench.bare(UNARY.name)}
            runs = {name: partial(bench.loaded, subject, UNARY) for name, subject in everyone.items()}
            loads = interleaved(runs, bench.effort.repeats)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    cost = {name: median(load.cpu_per_call for load in found) for name, found in loads.items()}
    pairs = zip(loads["router"], loads["bare"], strict=True)
    ratio = median(ours.cpu_per_call / bare.cpu_per_call for ours, bare in pairs)
    verdict = "as it may be" if ratio <= _MOST else f"more than {_MOST}: profile before you merge"
    print(f"a unary call: {cost['router']:.0f} µs, bare {cost['bare']:.0f} µs, ratio {ratio:.2f}, {verdict}")
    return int(ratio > _MOST)


if __name__ == "__main__":
    sys.exit(main())
