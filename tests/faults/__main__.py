"""The sixteen faults with the true times, as a table: ``make faults``.

It takes a minute and a half, and ends with status 1 where a promise is broken.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence

from rich.console import Console
from rich.table import Table

from tests.faults.flapping import DOWN, flap
from tests.faults.running import Report, run
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import TRUE
from tests.faults.wires import WIRES

_AT_ONCE = 6
"""How many of the runs that do not wait go on at once: more would measure each other."""


async def reports() -> list[Report]:
    """Run everything; what has to wait for long waits at the same time."""
    few = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(work: Awaitable[Report], *, waits: bool) -> Report:
        if waits:
            return await work
        async with few:
            return await work

    runs = [
        in_turn(run(scenario, wire, TRUE, way), waits=scenario.waits(TRUE, way) > 0)
        for scenario in SCENARIOS
        for wire in WIRES
        for way in scenario.ways
    ]
    runs += [in_turn(flap(wire, TRUE, down), waits=True) for wire in WIRES for down in DOWN]
    return sorted(await asyncio.gather(*runs), key=lambda report: report.row)


def table(found: Sequence[Report]) -> Table:
    """Return the table, with row 16, which is a part of each of the others."""
    columns = ("#", "the primary", "wire", "call", "verdict", "seconds", "attempts", "who answered", "usage")
    made = Table(*columns)
    for one in found:
        row = [str(one.row), one.fault, one.wire, one.way, one.verdict, f"{one.took:.2f}"]
        made.add_row(*row, ", ".join(one.attempts), one.answered, one.usage)
    named = sum(one.answered.startswith(("a1 (primary)", "b1 (fallback)")) for one in found)
    made.add_row("16", "any of the above", "", "", f"{named} answers name who gave them", "", "", "", "")
    return made


def main() -> int:
    """Print the table; return 1 where a promise was broken."""
    began = time.monotonic()
    found = asyncio.run(reports())
    console = Console(width=None if sys.stdout.isatty() else 220)
    console.print(table(found))
    rows = {one.row for one in found} | {16}
    broken = {one.row for one in found if one.complaints}
    console.print(
        f"{len(rows - broken)} of {len(rows)} faults are as promised, in {len(found)} runs "
        f"and {time.monotonic() - began:.0f} s."
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
