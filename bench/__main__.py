"""Run the measurements, and say which bounds are kept: ``python -m bench --only unary,streaming``.

Without ``--only`` the result is written to bench/results/, where the latest one is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import sys
import time
import traceback
from collections.abc import Sequence
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
    """Return 0 where every bound is kept, 1 where one is not, 2 where a measurement failed, 130 on Ctrl-C."""
    args = _arguments()
    effort = Effort(repeats=args.repeats, seconds=4.0 if args.full else 1.0, thorough=args.full)
    try:
        with Bench(effort, peers=not args.without_peers) as bench:
            return _measured(bench, args.only or MEASURES, write=not args.only)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; so are all servers", file=sys.stderr)
        return 130


def _measured(bench: Bench, measures: Sequence[str], *, write: bool) -> int:
    findings: list[Finding] = []
    broken: list[str] = []
    began = time.monotonic()
    for name in (*measures, _PROOF):
        since = time.monotonic()
        try:
            found = importlib.import_module(f"bench.measures.{name}").measure(bench)
        except Exception as error:  # noqa: BLE001 - whatever befalls one measure, the others are made
            why = str(error) if isinstance(error, BenchError) else traceback.format_exc()
            broken.append(f"{name}: {why}")
            print(broken[-1], file=sys.stderr)
        else:
            findings += found
            bench.seconds[name] = round(time.monotonic() - since)
            print(f"{table(found)}\n({name}: {bench.seconds[name]} s)\n", flush=True)
        if write:
            _write(bench, findings, broken)
    print(f"{_text(bench, findings, broken)}\n({time.monotonic() - began:.0f} s)")
    return 2 if broken else int(any(finding.passed is False for finding in findings))


def _text(bench: Bench, findings: Sequence[Finding], broken: Sequence[str]) -> str:
    """Return the table, and below it what is not in it, which nobody shall take for kept."""
    left_out = [f"left out: {name}: {why}" for name, why in bench.left_out.items()]
    return "\n".join([table(findings), *left_out, *(f"failed: {what}" for what in broken)])


def _write(bench: Bench, findings: Sequence[Finding], broken: Sequence[str]) -> None:
    result = {
        "began": bench.began,
        "cpu": _cpu(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "seconds": bench.seconds,
        "repeats": bench.effort.repeats,
        "findings": [finding.record() for finding in findings],
        "curves": bench.curves,
        "left_out": bench.left_out,
        "failed": broken,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "latest.txt").write_text(_text(bench, findings, broken) + "\n")


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _named(names: str) -> Sequence[str]:
    unknown = sorted(set(names.split(",")) - set(MEASURES))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}"
        )
    return names.split(",")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_named, help=f"some of {', '.join(MEASURES)}")
    parser.add_argument("--full", action="store_true", help="longer, and what takes long")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true", help="measure nobody else's gateway")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
