from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from router_server.core.budget import BudgetUse
from router_server.core.engine import EngineState, EngineStatus
from router_server.core.errors import Outcome, Reason
from router_server.core.moves import Moves
from router_server.core.observer import CallStart, Reused, RpcRecord, RpcStart
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.provider import EngineLoad
from router_server.core.record import replace
from router_server.core.reloads import Reloads
from router_server.core.shadow import ShadowCount
from router_server.core.shared import SharedSnapshot
from router_server.core.status import TargetSnapshot
from router_server.core.types import EngineTimes, Operation
from router_server.telemetry import Telemetry, TelemetrySettings, build, conventions, instruments
from router_server.telemetry.callers import MOST
from router_server.telemetry.distributions import Delta, Distributions
from tests.telemetry.collector import Collector, attributes
from tests.telemetry.driver import (
    EMBED,
    FIRST,
    METHOD,
    SECOND,
    answered,
    attempt_start,
    call_record,
    drive,
    failed,
)

QUIET = TelemetrySettings(log_format="json", log_level="critical")
TARGETS = (
    TargetSnapshot("openai-mini", "openai", 3, 2, "open", cooling=1.5, healthy=False, concurrency_limit=45),
    TargetSnapshot("gemini-flash", "google", breaker="half_open"),
)
ENGINES = tuple(
    TargetSnapshot(target, "local", inflight, endpoint=endpoint, engine_up=load is not None, engine=load)
    for target, inflight in (("small", 1), ("large", 2))
    for endpoint, load in (("gpu-1:8000", EngineLoad(5, 2, 0.25)), ("gpu-2:8000", None))
)
UPSTREAM = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4o-mini",
    "server_address": "api.openai.com",
    "server_port": "443",
}


class Scrape:
    """Labels with an empty value are left out: to Prometheus they are the same as none."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families = {family.name: family for family in families}

    def value(self, name: str, **labels: str) -> float:
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and _present(sample.labels) == labels
        ]
        assert len(found) == 1, (name, labels, found)
        return float(found[0])

    def labels(self, name: str) -> list[dict[str, str]]:
        samples = (sample for family in self.families.values() for sample in family.samples)
        return [dict(sample.labels) for sample in samples if sample.name == name]


def _present(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if value}


def scrape(telemetry: Telemetry) -> Scrape:
    body, content_type = telemetry.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(parse_text(body.decode()))


async def test_a_call_with_a_failover() -> None:
    telemetry = build(QUIET, lambda: TARGETS)
    drive(telemetry, failed(FIRST), answered(SECOND))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    assert seen.value("modelrouter_attempts_total", target="openai-mini", outcome="unavailable") == 1
    assert seen.value("modelrouter_attempts_total", target="gemini-flash", outcome="ok") == 1
    failover = {"route": "chat-default", "from": "openai-mini", "to": "gemini-flash", "reason": "unavailable"}
    assert seen.value("modelrouter_failovers_total", **failover) == 1
    assert seen.value("modelrouter_tokens_total", target="gemini-flash", direction="input") == 12
    assert seen.value("modelrouter_tokens_total", target="gemini-flash", direction="output") == 34
    assert math.isclose(seen.value("modelrouter_cost_total", target="gemini-flash"), 2.5)
    assert seen.value("modelrouter_queue_wait_seconds_sum", target="openai-mini") == 0.05
    call = {"route": "chat-default", "operation": "stream"}
    assert seen.value("modelrouter_call_duration_seconds_sum", **call) == 2.5
    assert seen.value("modelrouter_call_time_to_first_token_seconds_sum", route="chat-default") == 0.8
    rpc = {"rpc_system_name": "grpc", "rpc_method": METHOD, "rpc_response_status_code": "OK"}
    assert seen.value("rpc_server_call_duration_seconds_count", **rpc) == 1


async def test_hedges_are_counted_by_whether_they_won() -> None:
    telemetry = build(QUIET, tuple)
    hedge = replace(SECOND, hedge=True)
    drive(telemetry, failed(FIRST, Outcome.CANCELLED), answered(hedge))
    drive(telemetry, failed(hedge, Outcome.CANCELLED), answered(FIRST))
    drive(telemetry, failed(hedge, Outcome.UNAVAILABLE), answered(FIRST))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    of_hedge = {"route": "chat-default", "target": "gemini-flash"}
    assert seen.value("modelrouter_hedges_total", **of_hedge, won="true") == 1
    assert seen.value("modelrouter_hedges_total", **of_hedge, won="false") == 2
    assert len(seen.labels("modelrouter_hedges_total")) == 2, "who is not a hedge is not counted"


async def test_the_conventions_of_generative_ai() -> None:
    telemetry = build(QUIET, tuple)
    drive(telemetry, answered(FIRST))
    drive(telemetry, failed(FIRST, Outcome.TIMEOUT))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    name = "gen_ai_client_inference"
    assert seen.value(f"{name}_duration_seconds_sum", **UPSTREAM) == 2.0
    assert seen.value(f"{name}_duration_seconds_sum", **UPSTREAM, error_type="timeout") == 0.25
    assert seen.value(f"{name}_duration_seconds_bucket", **UPSTREAM, le="1.28") == 0
    assert seen.value(f"{name}_duration_seconds_bucket", **UPSTREAM, le="2.56") == 1
    assert seen.value(f"{name}_duration_seconds_bucket", **UPSTREAM, le="655.36") == 1
    assert seen.value(f"{name}_time_to_first_chunk_seconds_sum", **UPSTREAM) == 0.5
    assert seen.value(f"{name}_time_per_output_chunk_seconds_sum", **UPSTREAM) == 0.02
    assert seen.value(f"{name}_operation_input_tokens_count", **UPSTREAM) == 1
    assert seen.value(f"{name}_operation_output_tokens_sum", **UPSTREAM) == 34
    unknown = {**UPSTREAM, "gen_ai_token_modality": "unknown"}
    assert seen.value(f"{name}_usage_input_tokens_total", **unknown) == 12
    assert seen.value(f"{name}_usage_output_tokens_total", **unknown) == 34
    assert seen.value(f"{name}_usage_cache_read_input_tokens_total", **unknown) == 5
    assert seen.value(f"{name}_usage_cache_write_input_tokens_total", **unknown) == 6
    assert seen.value(f"{name}_usage_reasoning_output_tokens_total", **unknown) == 7


async def test_the_pace_of_an_answer_and_where_its_engine_says_that_the_time_went() -> None:
    telemetry = build(QUIET, tuple)
    start = attempt_start(endpoint="gpu-1:8000")
    drive(telemetry, failed(start), answered(start), answered(start, engine=EngineTimes(prefill=0.3)))
    drive(telemetry, answered(start, engine=None, usage=None))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    labels = {"target": "openai-mini", "endpoint": "gpu-1:8000"}
    rates = next(name for name in seen.families if name.startswith("modelrouter_tokens_per_second"))
    assert seen.value(f"{rates}_count", **labels) == 2
    assert seen.value(f"{rates}_sum", **labels) == pytest.approx(2 * 34 / 1.99)
    time = "modelrouter_engine_time_seconds"
    assert seen.value(f"{time}_count", **labels, phase="queue") == 1
    assert seen.value(f"{time}_sum", **labels, phase="prefill") == 0.5
    assert seen.value(f"{time}_sum", **labels, phase="decode") == 1.5


async def test_embeddings_have_metrics_of_their_own() -> None:
    telemetry = build(QUIET, tuple)
    start = attempt_start(operation=Operation.EMBED, request=EMBED, model="te3", route="embed-default")
    done = answered(start, time_to_first_token=None, time_per_token=None)
    call = CallStart("call-1", Operation.EMBED, "embed-default", EMBED)
    drive(telemetry, done, call=call_record(done, start=call, time_to_first_token=None))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    labels = {**UPSTREAM, "gen_ai_operation_name": "embeddings", "gen_ai_request_model": "te3"}
    assert seen.value("gen_ai_client_embeddings_duration_seconds_sum", **labels) == 2.0
    assert seen.value("gen_ai_client_embeddings_operation_input_tokens_sum", **labels) == 12
    assert not [name for name in seen.families if name.startswith("gen_ai_client_inference")]
    assert seen.value("modelrouter_tokens_total", target="openai-mini", direction="input") == 12


async def test_gauges_show_the_targets_at_the_moment_of_the_scrape() -> None:
    targets = list(TARGETS)
    telemetry = build(QUIET, lambda: targets)
    before = scrape(telemetry)
    targets[0] = TargetSnapshot("openai-mini", "openai", healthy=True, check_took=0.25)
    after = scrape(telemetry)
    await telemetry.shutdown()

    openai, google = (
        {"target": "openai-mini", "provider": "openai"},
        {"target": "gemini-flash", "provider": "google"},
    )
    assert before.value("modelrouter_inflight", **openai) == 3
    assert before.value("modelrouter_queue_depth", **openai) == 2
    assert before.value("modelrouter_concurrency_limit", provider="openai") == 45
    assert before.labels("modelrouter_concurrency_limit") == [{"provider": "openai"}]
    assert before.value("modelrouter_breaker_state", **openai) == 2
    assert before.value("modelrouter_breaker_state", **google) == 1
    assert before.value("modelrouter_target_cooling_seconds", **openai) == 1.5
    assert before.labels("modelrouter_target_healthy") == [openai]
    assert before.value("modelrouter_target_healthy", **openai) == 0
    assert after.value("modelrouter_inflight", **openai) == 0
    assert after.value("modelrouter_breaker_state", **openai) == 0
    assert after.value("modelrouter_target_healthy", **openai) == 1
    assert before.labels("modelrouter_check_duration_seconds") == []
    assert after.value("modelrouter_check_duration_seconds", **openai) == 0.25


async def test_a_snapshot_that_fails_takes_only_the_gauges_with_it() -> None:
    def broken() -> tuple[TargetSnapshot, ...]:
        raise RuntimeError("no targets yet")

    telemetry = build(QUIET, broken)
    drive(telemetry, answered(FIRST))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    assert seen.value("modelrouter_attempts_total", target="openai-mini", outcome="ok") == 1
    assert "modelrouter_inflight" not in seen.families


async def test_breakers_and_rate_limits() -> None:
    telemetry = build(QUIET, lambda: TARGETS)
    observer = fan_out(telemetry.observers)
    for before, after in (("closed", "open"), ("open", "half_open"), ("half_open", "open")):
        observer.breaker_changed("openai-mini", "openai", before, after)
    observer.breaker_changed("openai/whatever-a-caller-wrote", "openai", "closed", "open")
    drive(telemetry, failed(FIRST, Outcome.RATE_LIMITED))
    seen = scrape(telemetry)
    await telemetry.shutdown()

    assert seen.value("modelrouter_breaker_opens_total", target="openai-mini", provider="openai") == 2
    assert seen.value("modelrouter_breaker_opens_total", target="unknown", provider="openai") == 1
    assert seen.value("modelrouter_rate_limited_total", target="openai-mini") == 1


async def test_what_callers_choose_is_no_label() -> None:
    telemetry = build(QUIET, tuple)
    for number in range(50):
        name = f"model-of-caller-{number}"
        start = attempt_start(route="direct", target=f"openai/{name}", model=name)
        call = CallStart(f"call-{number}", Operation.STREAM, "direct", start.request or EMBED)
        drive(telemetry, answered(start, reported_model=name), call=call_record(answered(start), start=call))
    body = telemetry.render()[0].decode()
    await telemetry.shutdown()

    for chosen in ("model-of-caller", "user-4711", "team-0815", "call-1", "req-1"):
        assert chosen not in body
    seen = Scrape(parse_text(body))
    assert seen.value("modelrouter_attempts_total", target="direct", outcome="ok") == 50


async def test_endpoints_have_gauges_of_their_own_and_an_engine_those_of_its_load_once() -> None:
    telemetry = build(QUIET, lambda: ENGINES)
    fan_out(telemetry.observers).breaker_changed("small@gpu-2:8000", "local", "closed", "open")
    seen = scrape(telemetry)
    await telemetry.shutdown()

    first, second = ({"provider": "local", "endpoint": f"gpu-{number}:8000"} for number in (1, 2))
    assert seen.value("modelrouter_inflight", target="small", **first) == 1
    assert seen.value("modelrouter_inflight", target="large", **second) == 2
    assert seen.labels("modelrouter_engine_up") == [first, second]
    assert seen.value("modelrouter_engine_up", **first) == 1
    assert seen.value("modelrouter_engine_up", **second) == 0
    assert seen.labels("modelrouter_engine_running") == [first]
    assert seen.value("modelrouter_engine_running", **first) == 5
    assert seen.value("modelrouter_engine_waiting", **first) == 2
    assert seen.value("modelrouter_engine_kv_cache_usage", **first) == 0.25
    assert seen.value("modelrouter_breaker_opens_total", target="small", **second) == 1


async def test_calls_that_fail_and_calls_that_are_cancelled() -> None:
    telemetry = build(QUIET, tuple)
    drive(telemetry, call=call_record(error=Reason.DEADLINE_EXCEEDED), code="DEADLINE_EXCEEDED")
    drive(telemetry, call=call_record(error=None, cancelled=True), code="CANCELLED")
    seen = scrape(telemetry)
    await telemetry.shutdown()

    call = {"route": "chat-default", "operation": "stream"}
    assert seen.value("modelrouter_call_duration_seconds_count", **call, error_type="DEADLINE_EXCEEDED") == 1
    assert seen.value("modelrouter_call_duration_seconds_count", **call, error_type="cancelled") == 1
    rpc = {"rpc_system_name": "grpc", "rpc_method": METHOD}
    late = {"rpc_response_status_code": "DEADLINE_EXCEEDED", "error_type": "DEADLINE_EXCEEDED"}
    assert seen.value("rpc_server_call_duration_seconds_count", **rpc, **late) == 1
    gone = {"rpc_response_status_code": "CANCELLED"}
    assert seen.value("rpc_server_call_duration_seconds_count", **rpc, **gone) == 1


async def test_every_metric_has_its_name_and_only_its_labels(otlp: Collector) -> None:
    settings = TelemetrySettings(otlp_endpoint=otlp.url, log_format="json", log_level="critical")
    shared = SharedSnapshot(degraded=False, asked={("get", "ok"): 1})
    process = EngineStatus(EngineState.READY, start_duration=1.0)
    targets = (*TARGETS, *ENGINES, TargetSnapshot("qwen", "local", check_took=0.5, process=process))
    copies = [ShadowCount("chat", sent=3, dropped=1)]
    uses = [BudgetUse("route/chat", "daily", 0.5)]
    moves = [Moves("chat", Counter({"a": 2}), Counter({("a", "b"): 1}))]
    telemetry = build(
        settings,
        lambda: targets,
        lambda: shared,
        lambda: copies,
        Reloads(),
        budgets=lambda: uses,
        moves=lambda: moves,
    )
    embed = attempt_start(operation=Operation.EMBED, request=EMBED)
    drive(telemetry, failed(FIRST, Outcome.RATE_LIMITED), answered(replace(SECOND, hedge=True)))
    drive(telemetry, answered(embed))
    again = call_record(answered(FIRST))
    fan_out(telemetry.observers).call(again.start).ended(replace(again, reused=Reused.CACHE))
    fan_out(telemetry.observers).breaker_changed("openai-mini", "openai", "closed", "open")
    await telemetry.shutdown()

    assert otlp.metrics.keys() == {metric.name for metric in instruments.METRICS}
    for metric in instruments.METRICS:
        wire = otlp.metrics[metric.name]
        kind = {"sum": "COUNTER", "histogram": "HISTOGRAM", "gauge": "GAUGE"}[str(wire.WhichOneof("data"))]
        assert kind == metric.instrument.name
        assert (wire.unit, wire.description) == (metric.unit, metric.description)
        points = getattr(wire, str(wire.WhichOneof("data"))).data_points
        for point in points:
            assert attributes(point.attributes).keys() <= set(metric.labels), metric.name
        if metric.buckets:
            assert tuple(points[0].explicit_bounds) == metric.buckets
            assert (
                wire.histogram.aggregation_temporality
                == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            )


async def test_a_collector_that_asks_for_deltas_is_told_so(
    otlp: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    settings = TelemetrySettings(otlp_endpoint=otlp.url, log_format="json", log_level="critical")
    telemetry = build(settings, tuple)
    drive(telemetry, answered(FIRST))
    await telemetry.shutdown()

    for metric in (instruments.CALL_DURATION, instruments.ATTEMPTS_MADE):
        wire = otlp.metrics[metric.name]
        data = getattr(wire, str(wire.WhichOneof("data")))
        assert data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def test_a_delta_is_what_was_added_since_it_was_last_asked_for() -> None:
    reader = InMemoryMetricReader()
    distributions, delta = Distributions(), Delta()
    distributions.keep_place(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"))
    waits = distributions.create(instruments.QUEUE_WAIT)

    def read(change: Callable[[Metric], Metric]) -> list[tuple[Any, int, float, list[int]]]:
        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = distributions.complete(data, change).resource_metrics[0].scope_metrics[0].metrics
        points: Any = metric.data.data_points
        return [(p.attributes["target"], p.count, p.sum, list(filter(None, p.bucket_counts))) for p in points]

    waits.add(0.5, ("a",))
    waits.add(0.5, ("a",))
    assert read(delta.of) == [("a", 2, 1.0, [2])]
    waits.add(0.0, ("a",))
    waits.add(100.0, ("b",))
    assert read(delta.of) == [("a", 1, 0.0, [1]), ("b", 1, 100.0, [1])]
    assert read(delta.of) == []
    assert read(lambda metric: metric) == [("a", 3, 1.0, [1, 2]), ("b", 1, 100.0, [1])]


async def test_an_example_of_what_was_measured_names_its_trace_if_that_is_kept(otlp: Collector) -> None:
    for ratio, kept in ((1.0, 1), (0.0, 0)):
        settings = TelemetrySettings(
            otlp_endpoint=otlp.url, sample_ratio=ratio, log_format="json", log_level="critical"
        )
        telemetry = build(settings, tuple)
        drive(telemetry, answered(FIRST))
        await telemetry.shutdown()
        (point,) = otlp.metrics[conventions.RPC_DURATION.name].histogram.data_points
        named = {example.trace_id for example in point.exemplars}
        assert len(named) == kept
        assert named <= {span.trace_id for span in otlp.spans}


async def test_what_is_not_remote_has_no_address(otlp: Collector) -> None:
    settings = TelemetrySettings(otlp_endpoint=otlp.url, log_format="json", log_level="critical")
    telemetry = build(settings, tuple)
    drive(telemetry, answered(attempt_start(kind="embedded", server_address="", server_port=None)))
    await telemetry.shutdown()

    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "embedded",
        "gen_ai.request.model": "gpt-4o-mini",
    }
    (duration,) = otlp.metrics[conventions.INFERENCE_DURATION.name].histogram.data_points
    (used,) = otlp.metrics[conventions.USAGE_INPUT.name].sum.data_points
    assert attributes(duration.attributes) == expected
    assert attributes(used.attributes) == {**expected, "gen_ai.token.modality": "unknown"}
    assert otlp.metrics[conventions.USAGE_INPUT.name].sum.is_monotonic


async def test_openmetrics_is_given_to_who_asks() -> None:
    telemetry = build(QUIET, lambda: TARGETS)
    drive(telemetry, answered(FIRST))
    body, content_type = telemetry.render("application/openmetrics-text; version=1.0.0")
    await telemetry.shutdown()

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    seen = Scrape(parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]  # it has no annotations
    assert seen.value("modelrouter_attempts_total", target="openai-mini", outcome="ok") == 1


async def test_two_in_one_process_do_not_mix() -> None:
    one, two = build(QUIET, tuple), build(QUIET, tuple)
    drive(one, answered(FIRST))
    drive(one, answered(FIRST))
    drive(two, answered(FIRST))
    counts = [
        scrape(each).value("modelrouter_attempts_total", target="openai-mini", outcome="ok")
        for each in (one, two)
    ]
    await two.shutdown()
    await one.shutdown()

    assert counts == [2, 1]


async def test_callers_who_are_known_are_counted_apart_up_to_a_number() -> None:
    telemetry = build(QUIET, tuple)
    observer = fan_out_rpc(telemetry.rpc_observers)
    start = RpcStart(METHOD, "req-1", "peer")
    for number in range(MOST + 50):
        call = call_record(answered(FIRST))
        record = RpcRecord(start, "OK", 1.0, call=call, principal=f"jwt/tenant-{number}")
        observer.rpc(start).ended(record)
    observer.rpc(start).ended(RpcRecord(start, "OK", 1.0, principal="jwt/tenant-0"))
    seen = scrape(telemetry)
    body, _type = telemetry.render()
    await telemetry.shutdown()
    assert body.count(b"modelrouter_caller_rpcs_total{") == MOST + 1
    assert seen.value("modelrouter_caller_rpcs_total", principal="jwt/tenant-0", code="OK") == 2
    assert seen.value("modelrouter_caller_rpcs_total", principal="other", code="OK") == 50
    tokens = answered(FIRST).usage
    assert tokens is not None
    used = seen.value("modelrouter_caller_tokens_total", principal="other", direction="input")
    assert used == 50 * tokens.input_tokens
