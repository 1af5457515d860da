"""Row 15: the primary is down for a minute; all calls are answered, and it is soon back in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from tests.faults.faults import whole
from tests.faults.running import Report, report
from tests.faults.stage import OF_PRIMARY, Stage, Timers, Told, complaints_about, soon, stage, told
from tests.faults.wires import Wire

ROW = 15
_CALLS = 20
_APART = 4.0
_DOWN = 60.0
_BACK_WITHIN = 30.0
"""Seconds of the promise, all multiplied by the timers' scale."""

_MOST_CALLS = 60
_OWN = 2.0
"""Seconds that a call itself may take."""


@dataclass(frozen=True)
class Down:
    """A way of being down: how it begins, how it ends, and whether active checks may tell of it."""

    begin: Callable[[Stage], Awaitable[None]]
    end: Callable[[Stage], Awaitable[None]]
    checks: bool = True


async def _refuse(made: Stage) -> None:
    await made.primary.stop()


async def _listen(made: Stage) -> None:
    await made.primary.start()


async def _answer_503(made: Stage) -> None:
    made.primary.always(made.wire.refusal(503))


async def _answer(made: Stage) -> None:
    made.primary.always(whole(made.wire, OF_PRIMARY))


DOWN: Mapping[str, Down] = {
    "connections are refused": Down(_refuse, _listen),
    "503, while its checks pass": Down(_answer_503, _answer),
    "503, without checks": Down(_answer_503, _answer, checks=False),
}


async def flap(wire: Wire, timers: Timers, down: str, way: str = "stream") -> Report:
    """Let the primary be down ``down`` for its minute, and call all the while and until it is back in use."""
    scale = timers.scale
    async with stage(wire, replace(timers, checks=DOWN[down].checks)) as made:
        await DOWN[down].begin(made)
        began = time.monotonic()
        recovery = asyncio.create_task(_recover(made, down, _DOWN * scale))
        calls: list[tuple[float, Told]] = []
        while len(calls) < _CALLS or not _back(calls, began + _DOWN * scale):
            calls.append((time.monotonic(), await told(made.call(way))))
            if len(calls) == _MOST_CALLS:
                break
            await asyncio.sleep(began + len(calls) * _APART * scale - time.monotonic())
        await recovery
        complaints = [wrong for _at, seen in calls for wrong in _each(seen)]
        back = next((at for at, seen in calls if at > began + _DOWN * scale and _by_primary(seen)), None)
        took = float("inf") if back is None else back - began - _DOWN * scale
        if took > _BACK_WITHIN * scale:
            complaints.append(f"the primary was back in use {took:.2f} s after its recovery")
        if not any(_by_primary(seen) is False for _at, seen in calls):
            complaints.append("the fallback never answered: the primary was not down")
        if not await soon(lambda: made.served.idle):
            complaints.append("a permit is held")
    fault = f"down for 60 s, {down}: {len(calls)} calls 4 s apart, back in use after {took:.1f} s"
    return report(ROW, fault, wire, way, calls[-1][1], complaints)


async def _recover(made: Stage, down: str, after: float) -> None:
    await asyncio.sleep(after)
    await DOWN[down].end(made)


def _back(calls: list[tuple[float, Told]], since: float) -> bool:
    return any(at > since and _by_primary(seen) for at, seen in calls)


def _by_primary(seen: Told) -> bool:
    return seen.answer is not None and seen.answer.route.target == "a1"


def _each(seen: Told) -> list[str]:
    if seen.answer is None:
        return [f"a call failed: {seen.error}"]
    late = [f"a call took {seen.took:.2f} s"] if seen.took > _OWN else []
    return complaints_about(seen.answer) + late
