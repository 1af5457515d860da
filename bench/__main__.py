"""Run the measurements, and say which bounds are kept: ``python -m bench --only unary,streaming``.

Without ``--only`` the result is written to bench/results/, where the latest one is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.rig.bench import Bench, Effort
from bench.rig.finding import Finding, table
from bench.rig.process import BenchError

MEASURES: Final = (
    "unary",
    "streaming",
    "paced",
    "latency",
    "core",
    "embed",
    "memory",
    "start",
    "workers",
    "growth",
    "shortest_first",
)
_PROOF: Final = "features"
"""Made in every run: that nothing was turned off."""

RESULTS: Final = Path(__file__).parent / "results"
_LIBRARIES: Final = ("grpcio", "protobuf", "aiohttp", "msgspec", "uvloop")


def main() -> int:
    """Return 0 where every bound is kept, 1 where one is not, 2 where a measurement failed."""
    args = _arguments()
    effort = Effort(repeats=args.repeats, seconds=4.0 if args.full else 1.0, thorough=args.full)
    findings: list[Finding] = []
    broken = False
    began = time.monotonic()
    with Bench(effort, peers=not args.without_peers) as bench:
        for name in (*(args.only or MEASURES), _PROOF):
            since = time.monotonic()
            try:
                found = importlib.import_module(f"bench.measures.{name}").measure(bench)
            except BenchError as error:
                broken = True
                print(f"{name}: {error}", file=sys.stderr)
                continue
            findings += found
            print(f"{table(found)}\n({name}: {time.monotonic() - since:.0f} s)\n", flush=True)
            if not args.only:
                _write(bench, findings)
    print(f"{table(findings)}\n({time.monotonic() - began:.0f} s)")
    return 2 if broken else int(any(finding.passed is False for finding in findings))


def _write(bench: Bench, findings: list[Finding]) -> None:
    result = {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "repeats": bench.effort.repeats,
        "findings": [finding.record() for finding in findings],
        "curves": bench.curves,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "latest.txt").write_text(table(findings) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"some of {', '.join(MEASURES)}")
    parser.add_argument("--full", action="store_true", help="longer, and what takes long")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true", help="measure nobody else's gateway")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
