"""One scenario, run: the call, what came of it, and whether the router is as well as before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.faults.scenarios import Scenario
from tests.faults.stage import Stage, Timers, Told, complaints_about, soon, stage, told
from tests.faults.wires import WIRES, Wire
from tests.upstream import Upstream

_AT_ONCE = 4.0
"""Seconds for a healthy call on a busy machine; what it could wait for takes 5 s, to connect, or longer."""


@dataclass(frozen=True)
class Report:
    """What one run of a scenario was like; ``complaints`` is empty where all was as promised."""

    row: int
    fault: str
    wire: str
    way: str
    took: float
    attempts: tuple[str, ...]
    answered: str
    usage: str
    complaints: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One word, or what is wrong."""
        if self.complaints:
            return "BROKEN: " + "; ".join(self.complaints)
        if self.answered.startswith("a1 "):
            return "answered"
        return "rescued" if self.answered.startswith("b1 ") else "clean error"


async def run(scenario: Scenario, wire: Wire, timers: Timers, way: str) -> Report:
    """Do to the primary what the scenario says, make the call, and look at everything afterwards."""
    fallback_wire = scenario.fallback_wire or wire
    async with stage(wire, timers, fallback_wire=fallback_wire) as made:
        made.primary.then(*scenario.replies(wire, timers)).always(scenario.goes_on(wire, timers))
        made.fallback.always(scenario.fallback(fallback_wire))
        seen = await told(made.call(way, **scenario.options))
        complaints = [
            *_outcome(scenario, wire, seen),
            *_way_there(scenario, timers, way, seen),
            *scenario.after(made),
            *await _left_behind(made),
            *await _healthy(made, scenario, way),
        ]
    return report(scenario.row, scenario.fault, wire, way, seen, complaints)


def report(row: int, fault: str, wire: Wire, way: str, seen: Told, complaints: list[str]) -> Report:
    """Return the report of one call."""
    answer = seen.answer
    answered = (
        type(seen.error).__name__
        if answer is None
        else f"{answer.route.target} ({answer.route.upstream_model})"
    )
    return Report(
        row, fault, wire.kind, way, seen.took, seen.attempts, answered, seen.usage, tuple(complaints)
    )


def _outcome(scenario: Scenario, wire: Wire, seen: Told) -> list[str]:
    if seen.answer is None:
        name = type(seen.error).__name__
        return [] if name == scenario.error else [f"the call failed: {name}: {seen.error}"]
    if seen.answer.route.target != scenario.answers:
        return [f"{seen.answer.route.target} answered, not {scenario.answers}"]
    found = complaints_about(seen.answer)
    if seen.answer.usage.estimated is not scenario.estimated(wire):
        found.append("the usage is " + ("" if seen.answer.usage.estimated else "not ") + "estimated")
    return found


def _way_there(scenario: Scenario, timers: Timers, way: str, seen: Told) -> list[str]:
    found = []
    if seen.attempts != scenario.expected(way):
        found.append(f"the attempts were {', '.join(seen.attempts)}")
    least, most = scenario.within(timers, way)
    if not least <= seen.took <= most:
        found.append(f"it took {seen.took:.2f} s, not {least:.2f} to {most:.2f}")
    return found


async def _left_behind(made: Stage) -> list[str]:
    found = []
    if not await soon(lambda: made.served.idle):
        found.append("a permit is held")
    if not await soon(lambda: not any(map(_half_read, (made.primary, made.fallback)))):
        found.append("a connection whose answer broke is still open")
    return found


def _half_read(upstream: Upstream) -> bool:
    return any(not c.closed.is_set() and c.answered < len(c.requests) for c in upstream.connections)


async def _healthy(made: Stage, scenario: Scenario, way: str) -> list[str]:
    """Healthy calls after the fault: to the route, and thrice to the primary alone, where it may be asked."""
    made.all_well()
    found = []
    to_primary = [] if scenario.rests else [{"allowed_targets": ["a1"]}] * 3
    for options in ({}, *to_primary):
        asked_before = made.asked
        seen = await told(made.call(way, **options))
        if seen.answer is None:
            found.append(f"a healthy call afterwards failed: {seen.error}")
            continue
        found += complaints_about(seen.answer)
        # Also what no attempt tells of: a request sent again on another connection.
        asked = made.asked - asked_before
        if asked != {seen.answer.route.target: 1}:
            found.append(f"a healthy call afterwards was sent {dict(asked)}")
        if seen.took > _AT_ONCE:
            found.append(f"a healthy call afterwards took {seen.took:.2f} s")
        # The primary's rest may be over by now: it is short where the timers are.
        rested = seen.attempts[0] == "a1 rate_limited" and scenario.rests
        if len(seen.attempts) != 1 + rested:
            found.append(f"a healthy call afterwards took the way {', '.join(seen.attempts)}")
    return found


async def run_everywhere(scenario: Scenario, timers: Timers) -> list[Report]:
    """Run a scenario on both wires and in all its ways, at once."""
    runs = [run(scenario, wire, timers, way) for wire in WIRES for way in scenario.ways]
    return await asyncio.gather(*runs)
