from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from router_server.core.engine import EngineState, EngineStatus
from router_server.core.status import TargetSnapshot
from router_server.http.metrics_sum import parsed, summed
from router_server.telemetry import TelemetrySettings, build

STATUS = EngineStatus(EngineState.ASLEEP, 7, restarts=2, wakes=3, asleep=12.5, start_duration=27.25)


async def exposition(*targets: TargetSnapshot) -> str:
    telemetry = build(TelemetrySettings(log_level="critical"), lambda: targets)
    text = telemetry.render()[0].decode()
    await telemetry.shutdown()
    return text


def found(text: str) -> dict[str, float]:
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name.startswith("modelrouter_engine")
    }


async def test_an_engine_is_told_once_for_all_targets_of_its_provider() -> None:
    told = found(await exposition(*(TargetSnapshot(name, "local", process=STATUS) for name in ("a", "b"))))
    states = {name: value for name, value in told.items() if "engine_state" in name}
    assert {name for name, value in states.items() if value} == {"modelrouter_engine_state local asleep"}
    assert len(states) == len(EngineState)
    assert told.items() - states.items() == {
        ("modelrouter_engine_restarts_total local", 2),
        ("modelrouter_engine_wakes_total local", 3),
        ("modelrouter_engine_asleep_seconds_total local", 12.5),
        ("modelrouter_engine_start_duration_seconds local", 27.25),
    }


async def test_without_an_engine_nothing_is_told() -> None:
    assert not found(await exposition(TargetSnapshot("a", "other")))


async def test_an_engine_that_was_never_ready_has_no_duration() -> None:
    told = found(
        await exposition(TargetSnapshot("a", "local", process=EngineStatus(EngineState.STARTING, 1)))
    )
    assert not any("duration" in name for name in told)


async def test_workers_that_share_an_engine_tell_it_once() -> None:
    texts = [await exposition(TargetSnapshot("a", "local", process=STATUS)) for _worker in range(2)]
    samples = {
        sample.name: sample.value for family in summed(map(parsed, texts)) for sample in family.samples
    }
    assert samples["modelrouter_engine_restarts_total"] == 2
    assert samples["modelrouter_engine_wakes_total"] == 3
    assert samples["modelrouter_engine_asleep_seconds_total"] == 12.5
    assert samples["modelrouter_engine_start_duration_seconds"] == 27.25
