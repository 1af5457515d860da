"""What health says of routes, targets and engines, kept true while they come, change and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from router_server.assembled import Assembly
from router_server.core.engine import EngineState
from router_server.core.reloads import Reloads
from router_server.core.target import Upstream
from router_server.rpc.health import HealthBoard
from router_server.rpc.reports import reports
from router_server.state.opening import State

_HEALTH_REFRESH = 1.0
"""Seconds in which a breaker that opens or closes by the clock alone shows in health."""


async def show_health(
    assembly: Callable[[], Assembly],
    state: State,
    reloads: Reloads,
    health: HealthBoard,
    changed: asyncio.Event,
) -> None:
    """Keep ``health`` true until cancelled; ``changed`` hastens it."""
    shown: dict[str, bool | None] = {}
    while True:
        changed.clear()
        now = assembly()
        health.set_ready(now.ready)
        before, shown = shown, dict(_facts(now, state, reloads))
        for name in (name for name, well in shown.items() if name not in before or before[name] is not well):
            health.set(name, shown[name])
        for upstream in _checked(now):
            health.note(_name(upstream), reports(upstream.last_check, upstream.last_failed_check))
        for name in before.keys() - shown.keys():
            health.remove(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEALTH_REFRESH):
                await changed.wait()


def _facts(assembly: Assembly, state: State, reloads: Reloads) -> Iterator[tuple[str, bool | None]]:
    yield "config", reloads.last_ok
    if state.distributed:
        yield "state", not state.degraded
    for name, target in assembly.targets.items():
        yield f"target/{name}", target.serving
    for name, destination in assembly.destinations.items():
        yield f"target/{name}", destination.serving
    for upstream in _checked(assembly):
        yield _name(upstream), upstream.healthy
    for name, engine in assembly.engines.items():
        # A name for each state: health as gRPC defines it has no word for asleep.
        state_now: EngineState = engine.status.state
        yield f"engine/{name}/{state_now}", True
    for route in assembly.routes:
        yield f"route/{route.name}", any(target.takes_calls for target in route.targets)


def _checked(assembly: Assembly) -> Iterator[Upstream]:
    return (upstream for upstream in assembly.upstreams.values() if upstream.check is not None)


def _name(upstream: Upstream) -> str:
    return f"provider/{upstream.unique_name}"
