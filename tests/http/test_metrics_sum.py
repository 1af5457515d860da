from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from router_server.core.status import TargetSnapshot
from router_server.http.metrics_sum import parsed, registry_of, summed
from router_server.telemetry import TelemetrySettings, build
from tests.telemetry.driver import FIRST, SECOND, answered, drive, failed


def values(families: Iterable[Metric]) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def gauge(name: str, value: float) -> tuple[Metric, ...]:
    return parsed(f'# TYPE {name} gauge\n{name}{{target="a"}} {value}\n')


@pytest.mark.parametrize(
    ("name", "combined"),
    [
        ("modelrouter_inflight", 3),
        ("modelrouter_queue_depth", 3),
        ("modelrouter_breaker_state", 2),
        ("modelrouter_check_duration_seconds", 2),
        ("modelrouter_target_cooling_seconds", 2),
        ("modelrouter_target_healthy", 1),
        ("process_start_time_seconds", 1),
        ("process_resident_memory_bytes", 3),
    ],
)
def test_gauges(name: str, combined: float) -> None:
    assert values(summed([gauge(name, 1), gauge(name, 2)]))[f"{name} a"] == combined


def test_what_only_one_worker_has_is_kept() -> None:
    found = values(summed([gauge("one", 1), gauge("two", 2)]))

    assert found == {"one a": 1, "two a": 2, "modelrouter_workers_unreachable": 0}


def test_an_info_stands_once() -> None:
    infos = [parsed(f'# TYPE target_info gauge\ntarget_info{{instance="{n}"}} 1\n') for n in range(3)]
    found = summed(infos)

    assert values(found)["target_info 0"] == 1
    assert len(found[0].samples) == 1


def test_an_empty_label_is_no_label() -> None:
    texts = [
        '# TYPE a_total counter\na_total{error=""} 1\na_total{error="x"} 1\n',
        "# TYPE a_total counter\na_total 2\n",
    ]

    assert values(summed(map(parsed, texts))) == {
        "a_total": 3,
        "a_total x": 1,
        "modelrouter_workers_unreachable": 0,
    }


def test_last_words_count_for_what_only_grows() -> None:
    text = "# TYPE a_total counter\na_total 5\n# TYPE b gauge\nb 5\n# TYPE c histogram\n" + "".join(
        f"c_{part} 5\n" for part in ('bucket{le="+Inf"}', "count", "sum")
    )
    found = values(summed([parsed(text)], [parsed(text)], unreachable=1))

    assert found == {
        "a_total": 10,
        "b": 5,
        "c_bucket +Inf": 10,
        "c_count": 10,
        "c_sum": 10,
        "modelrouter_workers_unreachable": 1,
    }


def test_the_parts_are_left_as_they_were() -> None:
    part = gauge("modelrouter_inflight", 1)
    summed([part, part])

    assert values(part) == {"modelrouter_inflight a": 1}


@pytest.mark.parametrize("text", ["a{", "a", "# TYPE a\n", "a 1 2 x\n", 'a{b="c} 1\n', "<html>"])
def test_nonsense_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parsed(text)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.001, 1e6)), max_size=8), min_size=1, max_size=4
    )
)
def test_a_sum_is_what_one_process_would_have_counted(workers: list[list[tuple[str, float]]]) -> None:
    def exposition(observed: Iterable[tuple[str, float]]) -> str:
        registry = CollectorRegistry()
        counter = Counter("calls", "d", ["x"], registry=registry)
        histogram = Histogram("took", "d", ["x"], registry=registry, buckets=(0.1, 1, 10))
        level = Gauge("level", "d", ["x"], registry=registry)
        for label, value in observed:
            counter.labels(label).inc()
            histogram.labels(label).observe(value)
            level.labels(label).inc()
        return generate_latest(registry).decode()

    together = values(summed(map(parsed, map(exposition, workers))))
    alone = values(parsed(exposition([one for observed in workers for one in observed])))
    for name, value in alone.items():
        if "_created" not in name:
            assert together[name] == pytest.approx(value)


async def test_the_workers_own_telemetry_adds_up_to_a_valid_exposition() -> None:
    targets = (TargetSnapshot("openai-mini", "openai", inflight=1, breaker="open", healthy=False),)
    quiet = TelemetrySettings(log_format="json", log_level="critical")
    one, two = build(quiet, lambda: targets), build(quiet, lambda: targets)
    drive(one, failed(FIRST), answered(SECOND))
    drive(two, answered(SECOND))
    parts = [parsed(each.render()[0].decode()) for each in (one, two)]
    await two.shutdown()
    await one.shutdown()

    text = generate_latest(registry_of(summed(parts))).decode()
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    found = values(parsed(text))
    assert found["modelrouter_attempts_total ok gemini-flash"] == 2
    assert found["modelrouter_inflight openai openai-mini"] == 2
    assert found["modelrouter_breaker_state openai openai-mini"] == 2
    assert found["modelrouter_target_healthy openai openai-mini"] == 0
    assert len([name for name in found if name.startswith("target_info")]) == 1
