from __future__ import annotations

from router_server.core.shared import SharedSnapshot
from router_server.telemetry import TelemetrySettings, build
from tests.telemetry.test_metrics import scrape

QUIET = TelemetrySettings(log_format="json", log_level="critical")


async def test_how_the_shared_state_is_and_what_came_of_asking_it() -> None:
    asked = {("get", "ok"): 3, ("windows", "timeout"): 2}
    telemetry = build(QUIET, tuple, lambda: SharedSnapshot(degraded=True, asked=asked))
    seen = scrape(telemetry)
    await telemetry.shutdown()
    assert seen.value("modelrouter_state_degraded") == 1
    assert seen.value("modelrouter_state_operations_total", operation="get", outcome="ok") == 3
    assert seen.value("modelrouter_state_operations_total", operation="windows", outcome="timeout") == 2


async def test_where_nothing_is_shared_there_is_nothing_to_say() -> None:
    telemetry = build(QUIET, tuple)
    body, _type = telemetry.render()
    await telemetry.shutdown()
    assert b"modelrouter_state" not in body
