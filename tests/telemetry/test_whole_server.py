"""Telemetry as the real server drives it: RPC, core, provider, and sockets on every side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.serving import answer, chat, pieces, serving, two_targets
from tests.telemetry.collector import Collector, attributes
from tests.upstream import SSE_HEAD, End, Request, Step, Upstream, event, json_reply, sse_reply

SERVICE = "modelrouter.v1.ModelRouterService"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
W3C = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "vendor=opaque"), ("x-request-id", "req-7"))


def with_telemetry(text: str, otlp: Collector, **settings: Any) -> str:
    return f"{text}\ntelemetry: {json.dumps({'otlp_endpoint': otlp.url, **settings})}\n"


def traceparent(span: Span) -> str:
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


async def test_a_failover_from_the_callers_trace_to_the_upstreams(
    otlp: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({"error": {"message": "very-secret-a is overloaded"}}, status=503))
        b.always(sse_reply(pieces("the ", "launch ", "code")))
        async with serving(with_telemetry(two_targets(a, b, extra=", retries: 0"), otlp)) as served:
            async with aio.insecure_channel(served.target) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            call = served.stub.StreamChat(chat(text="tell me"), metadata=W3C)
            assert [message async for message in call]
            initial = dict(await call.initial_metadata())

    first, second = otlp.span("chat model-a"), otlp.span("chat model-b")
    route, rpc = otlp.span("route chat"), otlp.span(f"{SERVICE}/StreamChat")
    assert len(otlp.spans) == 4, "health is not traced"
    assert {span.trace_id.hex() for span in otlp.spans} == {TRACE}
    assert rpc.parent_span_id.hex() == CALLER
    assert route.parent_span_id == rpc.span_id
    assert first.parent_span_id == second.parent_span_id == route.span_id
    assert a.requests[0].headers["traceparent"] == traceparent(first)
    assert b.requests[0].headers["traceparent"] == traceparent(second)
    assert b.requests[0].headers["tracestate"] == "vendor=opaque"
    assert attributes(first.attributes)["error.type"] == "unavailable"
    seen = attributes(second.attributes)
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == (3, 2)
    assert (seen["server.address"], seen["server.port"]) == ("127.0.0.1", int(b.base_url.split(":")[2][:-3]))
    assert initial["x-trace-id"] == TRACE

    log = capsys.readouterr().err
    lines = [json.loads(line) for line in log.splitlines()]
    (access,) = [line for line in lines if line["logger"] == "router_server.access"]
    assert (access["request_id"], access["trace_id"], access["code"]) == ("req-7", TRACE, "OK")
    assert (access["route"], access["target"], access["attempts"]) == ("chat", "b1", 2)
    for unsaid in ("tell me", "launch", "overloaded", "very-secret-a", "very-secret-b"):
        assert unsaid not in log
        assert unsaid not in otlp.everything()


async def test_a_cancelled_stream_ends_all_its_spans(otlp: Collector) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Once", finish=None)[0]), End.STALL))
        async with serving(with_telemetry(two_targets(a, b), otlp, log={"level": "error"})) as served:
            call = served.stub.StreamChat(chat())
            await call.read()
            call.cancel()
            await a.connections[0].closed.wait()

    attempt = attributes(otlp.span("chat model-a").attributes)
    assert attempt["modelrouter.outcome"] == attempt["error.type"] == "cancelled"
    assert attributes(otlp.span("route chat").attributes)["modelrouter.call.cancelled"] is True
    rpc = attributes(otlp.span(f"{SERVICE}/StreamChat").attributes)
    assert rpc["rpc.response.status_code"] == "CANCELLED"


async def test_contents_are_in_the_spans_where_that_is_switched_on(otlp: Collector) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer("Paris")))
        text = with_telemetry(two_targets(a, b), otlp, record_content=True, log={"level": "error"})
        async with serving(text) as served:
            await served.stub.Chat(chat(text="What is the capital?"))

    seen = attributes(otlp.span("chat model-a").attributes)
    assert json.loads(seen["gen_ai.input.messages"])[0]["parts"][0]["content"] == "What is the capital?"
    assert json.loads(seen["gen_ai.output.messages"])[0]["parts"][0]["content"] == "Paris"
    assert seen["gen_ai.response.finish_reasons"] == ["stop"]


async def test_a_provider_may_be_kept_from_the_trace(otlp: Collector) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        text = two_targets(a, b, extra=", trace_context: false")
        async with serving(with_telemetry(text, otlp, log={"level": "error"})) as served:
            await served.stub.Chat(chat(), metadata=W3C)

    assert otlp.span("chat model-a").trace_id.hex() == TRACE
    assert "traceparent" not in a.requests[0].headers
    assert "tracestate" not in a.requests[0].headers


def values_of(otlp: Collector, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by those of its labels."""
    metric = otlp.metrics[name]
    points = metric.sum.data_points or metric.gauge.data_points
    return {
        tuple(map(str, attributes(point.attributes).values())): point.as_int or point.as_double
        for point in points
    }


async def test_the_hedges_of_a_server(otlp: Collector) -> None:
    hedged = asyncio.Event()

    def silent(_request: Request) -> Iterator[Step]:
        hedged.set()
        yield End.STALL

    async with Upstream() as a, Upstream() as b:
        a.then((hedged, *json_reply(answer())))
        a.then((End.STALL,))
        b.then(silent)
        b.then(json_reply(answer()))
        text = two_targets(a, b).replace("chat: {", "chat: {hedge: {after: 50ms, max_extra: 1}, ")
        async with serving(with_telemetry(text, otlp, log={"level": "error"})) as served:
            await served.stub.Chat(chat())
            await served.stub.Chat(chat())

    assert values_of(otlp, "modelrouter.hedges") == {("chat", "b1", "false"): 1, ("chat", "b1", "true"): 1}


async def test_the_counts_of_a_server(otlp: Collector) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({}, status=500))
        b.always(json_reply(answer()))
        text = two_targets(a, b, extra=", retries: 0, breaker: {failure_threshold: 1}")
        async with serving(with_telemetry(text, otlp, log={"level": "error"})) as served:
            await served.stub.Chat(chat())

    counts = partial(values_of, otlp)
    assert counts("modelrouter.attempts") == {("a1", "unavailable"): 1, ("b1", "ok"): 1}
    assert counts("modelrouter.failovers") == {("chat", "a1", "b1", "unavailable"): 1}
    assert counts("modelrouter.breaker.opens") == {("a1", "a"): 1}
    assert counts("modelrouter.breaker.state") == {("a1", "a"): 2, ("b1", "b"): 0}
    assert counts("modelrouter.inflight") == {("a1", "a"): 0, ("b1", "b"): 0}
