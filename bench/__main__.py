"""Run the measurements, and say which bounds are kept: ``python -m bench --only unary,streaming``."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from typing import Final

from bench.rig.bench import Bench, Effort
from bench.rig.finding import Finding, table
from bench.rig.process import BenchError

MEASURES: Final = ("unary", "streaming", "embed", "paced", "latency", "memory", "start", "workers", "growth")


def main() -> int:
    """Return 0 where every bound is kept."""
    args = _arguments()
    effort = Effort(repeats=args.repeats, seconds=4.0 if args.full else 1.5, thorough=args.full)
    findings: list[Finding] = []
    try:
        with Bench(effort, peers=not args.without_peers) as bench:
            for name in args.only or MEASURES:
                since = time.monotonic()
                found = importlib.import_module(f"bench.measures.{name}").measure(bench)
                print(f"{table(found)}\n({name}: {time.monotonic() - since:.0f} s)\n", flush=True)
                findings += found
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(findings))
    return int(any(finding.passed is False for finding in findings))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"some of {', '.join(MEASURES)}")
    parser.add_argument("--full", action="store_true", help="longer, and what takes long")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true", help="measure nobody else's gateway")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
