"""Every row of the sixteen faults through the real client and the real server, with short timers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.faults.flapping import DOWN, flap
from tests.faults.running import run_everywhere
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stage import SHORT
from tests.faults.wires import WIRES


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_the_promise_is_kept(scenario: Scenario) -> None:
    reports = await run_everywhere(scenario, SHORT)
    assert len(reports) == len(WIRES) * len(scenario.ways)
    assert not [report for report in reports if report.complaints]


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if "model" not in s.options], ids=str)
async def test_a_route_by_a_strategy_keeps_it_too(scenario: Scenario) -> None:
    chosen = replace(scenario, options={**scenario.options, "model": "chosen"})
    reports = await run_everywhere(chosen, SHORT)
    assert not [report for report in reports if report.complaints]


async def test_an_outage_costs_no_call_and_ends_when_it_is_over() -> None:
    reports = await asyncio.gather(*(flap(wire, SHORT, down) for wire in WIRES for down in DOWN))
    assert not [report for report in reports if report.complaints]


def test_no_row_is_missing() -> None:
    assert {scenario.row for scenario in SCENARIOS} | {15, 16} == set(range(1, 17))
