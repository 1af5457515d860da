"""Draw bench/results/latest.json as latest.svg: ``.venv-bench/bin/python bench/plot.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "bench"  # the same picture is the same file

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Draw the picture."""
    result = json.loads((RESULTS / "latest.json").read_text())
    bounded = [finding for finding in result["findings"] if finding["bound"] is not None]
    kinds = sorted({name.partition(":")[0] for name in result["curves"]})
    height = max(2 + 0.28 * len(bounded), 2.4 * len(kinds))
    figure = plt.figure(figsize=(13, height), layout="constrained")
    grid = figure.add_gridspec(max(1, len(kinds)), 2, width_ratios=(3, 2))
    _draw_bounds(figure.add_subplot(grid[:, 0]), bounded)
    for row, kind in enumerate(kinds):
        curves = {name: curve for name, curve in result["curves"].items() if name.startswith(f"{kind}:")}
        _draw_curves(figure.add_subplot(grid[row, 1]), kind, curves)
    figure.savefig(RESULTS / "latest.svg", metadata={"Date": None})


def _draw_bounds(axes: Any, findings: Iterable[dict[str, Any]]) -> None:
    """Draw how much of each bound is used: 1 is the bound, less is better."""
    findings = list(findings)[::-1]
    shares = [
        f["bound"] / max(f["ratio"], 1e-3) if f["at_least"] else f["ratio"] / f["bound"] for f in findings
    ]
    colors = ["tab:green" if finding["passed"] else "tab:red" for finding in findings]
    words = [f"{f['number']}. {f['what']} (x {f['against']})" for f in findings]
    axes.barh(words, shares, color=colors)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("share of the bound that is used: less is better")
    axes.tick_params(axis="y", labelsize=8)


def _label(name: str) -> str:
    what = name.partition(": ")[2]
    return (
        f"{what}, thousands"
        if what.startswith("instructions")
        else f"{what.removeprefix('CPU')}, µs of CPU".lstrip(", ")
    )


def _draw_curves(axes: Any, kind: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    for name, curve in curves.items():
        sizes, costs = zip(*curve, strict=True)
        axes.plot(sizes, costs, marker="o", label=_label(name))
    axes.set_xscale("log")
    if kind.startswith("bytes"):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)  # what is flat has to look flat
    axes.set_xlabel(kind)
    axes.set_ylabel("cost of a call")
    axes.legend()


if __name__ == "__main__":
    main()
