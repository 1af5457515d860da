"""What was found: figures, their ratio to another's in the same run, and the bound that it must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

Series = Mapping[str, Sequence[T]]
"""What each subject came to, in every repeat."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table.

    Attributes:
        number: which of the measurements it belongs to.
        what: in words.
        ratio: the figure that counts; the others say where it comes from.
        bound: what the ratio may be; None: for information.
        at_least: the bound is the least, not the most.
        ours: the router's own figure, in ``unit``.
        other: the figure of ``against``, in the same unit.
        turns: the ratio of each repeat, of which ``ratio`` is the median.
    """

    number: int
    what: str
    ratio: float
    bound: float | None = None
    at_least: bool = False
    ours: float | None = None
    other: float | None = None
    unit: str = ""
    against: str = "bare"
    turns: Sequence[float] = ()

    @property
    def passed(self) -> bool | None:
        """Whether the bound is kept; None where there is none."""
        if self.bound is None:
            return None
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "passed": self.passed}


def interleaved(runs: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Run everything by turns, so that what disturbs the machine disturbs all alike.

    Each repeat starts with another, so that none always follows the same.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    names = list(runs)
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(runs[name]())
    return found


def compared(
    number: int,
    what: str,
    series: Mapping[str, Sequence[float]],
    ours: str,
    against: str,
    *,
    unit: str,
    bound: float | None = None,
    at_least: bool = False,
) -> Finding:
    """Return the ratio of two subjects' figures: the median of the repeats' ratios."""
    turns = [a / b for a, b in zip(series[ours], series[against], strict=True)]
    return Finding(
        number,
        what,
        median(turns),
        bound,
        at_least,
        ours=median(series[ours]),
        other=median(series[against]),
        unit=unit,
        against=against,
        turns=turns,
    )


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as text for a terminal."""
    rows: list[tuple[str, ...]] = [("#", "what", "router", "other", "", "ratio", "bound", "")]
    rows += [_row(finding) for finding in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(finding: Finding) -> tuple[str, ...]:
    sign = "≥" if finding.at_least else "≤"
    return (
        str(finding.number),
        finding.what,
        "" if finding.ours is None else f"{finding.ours:,.4g} {finding.unit}",
        "" if finding.other is None else f"{finding.other:,.4g} {finding.unit}",
        f"x {finding.against}",
        f"{finding.ratio:.2f}",
        "" if finding.bound is None else f"{sign} {finding.bound:g}",
        {None: "", True: "pass", False: "FAIL"}[finding.passed],
    )
