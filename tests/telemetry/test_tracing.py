from __future__ import annotations

import asyncio
import contextvars
import json
import random

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from router_server.core.errors import Outcome, Reason
from router_server.core.observer import CallStart, RpcRecord, RpcStart
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.types import (
    Blob,
    ChatRequest,
    JsonObject,
    Message,
    Operation,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_server.telemetry import TelemetrySettings, build
from router_server.telemetry.passthrough import Passthrough
from router_server.telemetry.unsampled import current_trace_id
from tests.telemetry.collector import Collector, attributes
from tests.telemetry.driver import (
    CHAT,
    EMBED,
    FIRST,
    METHOD,
    PROMPT,
    REPLY,
    SECOND,
    answered,
    attempt_start,
    call_record,
    drive,
    failed,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
W3C = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=opaque"}


def settings(otlp: Collector, *, record_content: bool = False, ratio: float = 1.0) -> TelemetrySettings:
    return TelemetrySettings(
        service_name="router-in-test",
        otlp_endpoint=otlp.url,
        record_content=record_content,
        sample_ratio=ratio,
        log_format="json",
        log_level="error",
    )


async def test_attempts_are_siblings_under_the_route_under_the_rpc(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    sent = drive(telemetry, failed(FIRST), answered(SECOND), metadata=W3C)
    await telemetry.shutdown()

    rpc, route = otlp.span(METHOD), otlp.span("route chat-default")
    first, second = otlp.span("chat gpt-4o-mini"), otlp.span("chat gemini-2.5-flash")
    assert len(otlp.spans) == 4
    assert {span.trace_id.hex() for span in otlp.spans} == {TRACE}
    assert rpc.parent_span_id.hex() == CALLER
    assert route.parent_span_id == rpc.span_id
    assert first.parent_span_id == second.parent_span_id == route.span_id
    assert [rpc.kind, route.kind, first.kind, second.kind] == [
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_INTERNAL,
        Span.SPAN_KIND_CLIENT,
        Span.SPAN_KIND_CLIENT,
    ]
    assert not [event for span in otlp.spans for event in span.events]
    assert [headers["traceparent"] for headers in sent] == [
        f"00-{TRACE}-{span.span_id.hex()}-01" for span in (first, second)
    ]
    assert {headers["tracestate"] for headers in sent} == {"vendor=opaque"}
    assert otlp.resources[0]["service.name"] == "router-in-test"
    assert {"service.version", "service.instance.id"} <= otlp.resources[0].keys()
    assert otlp.scopes == {("router_server", "https://opentelemetry.io/schemas/1.44.0")}


async def test_attributes_follow_the_conventions(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    drive(telemetry, failed(FIRST), answered(SECOND))
    await telemetry.shutdown()

    request = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "server.port": 443,
        "modelrouter.route": "chat-default",
    }
    first = otlp.span("chat gpt-4o-mini")
    assert attributes(first.attributes) == {
        **request,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "server.address": "api.openai.com",
        "modelrouter.target": "openai-mini",
        "modelrouter.provider": "openai",
        "modelrouter.attempt.number": 1,
        "modelrouter.attempt.queue_wait": 0.05,
        "modelrouter.attempt.error_reason": "http_503",
        "modelrouter.outcome": "unavailable",
        "http.response.status_code": 503,
        "error.type": "unavailable",
    }
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert first.status.message == "http_503"
    second = otlp.span("chat gemini-2.5-flash")
    assert attributes(second.attributes) == {
        **request,
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.5,
        "modelrouter.attempt.time_per_token": 0.02,
        "modelrouter.attempt.tokens_per_second": 34 / (2.0 - 0.01),
        "modelrouter.engine.queue_time": 0.004,
        "modelrouter.engine.prefill_time": 0.2,
        "modelrouter.engine.decode_time": 1.5,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 6,
        "gen_ai.usage.reasoning.output_tokens": 7,
        "modelrouter.attempt.cost_nano_usd": 2_500_000_000,
        "server.address": "generativelanguage.googleapis.com",
        "modelrouter.target": "gemini-flash",
        "modelrouter.provider": "google",
        "modelrouter.attempt.number": 2,
        "modelrouter.attempt.queue_wait": 0.01,
        "modelrouter.outcome": "ok",
    }
    assert second.status.code == Status.STATUS_CODE_UNSET
    assert attributes(otlp.span("route chat-default").attributes) == {
        "modelrouter.route": "chat-default",
        "modelrouter.operation": "stream",
        "modelrouter.call.id": "call-1",
        "modelrouter.call.attempts": 2,
        "modelrouter.target": "gemini-flash",
        "modelrouter.provider": "google",
        "modelrouter.time_to_first_token": 0.8,
        "modelrouter.call.cost_nano_usd": 2_500_000_000,
    }
    assert attributes(otlp.span(METHOD).attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "modelrouter.request.id": "req-1",
        "modelrouter.principal": "key/search",
        "network.transport": "tcp",
        "client.address": "127.0.0.1",
        "client.port": 40000,
    }


async def test_a_call_that_failed(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    drive(telemetry, failed(FIRST), code="UNAVAILABLE", peer="ipv6:%5B::1%5D:4001")
    await telemetry.shutdown()

    route, rpc = otlp.span("route chat-default"), otlp.span(METHOD)
    assert route.status.code == rpc.status.code == Status.STATUS_CODE_ERROR
    assert attributes(route.attributes)["error.type"] == "ALL_TARGETS_FAILED"
    assert attributes(rpc.attributes)["error.type"] == "UNAVAILABLE"
    assert attributes(rpc.attributes)["modelrouter.reason"] == "ALL_TARGETS_FAILED"
    assert attributes(rpc.attributes)["client.address"] == "::1"


async def test_a_callers_fault_is_no_server_error(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    bad = failed(FIRST, Outcome.INVALID_REQUEST)
    drive(telemetry, bad, code="INVALID_ARGUMENT", call=call_record(bad, error=Reason.INVALID_REQUEST))
    await telemetry.shutdown()

    rpc = otlp.span(METHOD)
    assert rpc.status.code == Status.STATUS_CODE_UNSET
    assert "error.type" not in attributes(rpc.attributes)


async def test_a_cancelled_call_has_all_its_spans(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    cut = failed(FIRST, Outcome.CANCELLED, error_reason="", status=None, time_to_first_token=0.2)
    drive(telemetry, cut, code="CANCELLED", call=call_record(cut, error=None, cancelled=True))
    await telemetry.shutdown()

    attempt = otlp.span("chat gpt-4o-mini")
    assert attributes(attempt.attributes)["modelrouter.outcome"] == "cancelled"
    assert attributes(attempt.attributes)["error.type"] == "cancelled"
    assert attributes(attempt.attributes)["gen_ai.response.finish_reasons"] == ["error"]
    assert attempt.status.code == Status.STATUS_CODE_UNSET
    assert attributes(otlp.span("route chat-default").attributes)["modelrouter.call.cancelled"] is True
    assert attributes(otlp.span(METHOD).attributes)["rpc.response.status_code"] == "CANCELLED"


async def test_embedding(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    start = attempt_start(operation=Operation.EMBED, request=EMBED, model="te3", route="embed-default")
    call = CallStart("call-1", Operation.EMBED, "embed-default", EMBED)
    done = answered(start, finish_reason=None, time_to_first_token=None, answer=None)
    drive(telemetry, done, call=call_record(done, start=call))
    await telemetry.shutdown()

    seen = attributes(otlp.span("embeddings te3").attributes)
    assert seen["gen_ai.operation.name"] == "embeddings"
    assert seen["gen_ai.embeddings.dimension.count"] == 256
    assert "gen_ai.request.stream" not in seen


async def test_contents_are_not_recorded_by_default(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    drive(telemetry, failed(FIRST), answered(SECOND))
    await telemetry.shutdown()

    everything = otlp.everything()
    assert PROMPT not in everything
    assert REPLY not in everything
    assert "user-4711" not in everything
    assert "team-0815" not in everything


async def test_contents_are_recorded_where_that_is_switched_on(otlp: Collector) -> None:
    telemetry = build(settings(otlp, record_content=True), tuple)
    messages = (
        Message(Role.USER, (Text(PROMPT), Blob("image/png", b"12345"))),
        Message(Role.ASSISTANT, (ToolCall("c1", "look", '{"at": 1}'), ToolCall("c2", "look", "{broken"))),
        Message(Role.TOOL, (ToolResult("c1", (Text("seen"),)),)),
    )
    request = ChatRequest("chat-default", messages, response_format=JsonObject())
    drive(telemetry, answered(attempt_start(request=request)))
    await telemetry.shutdown()

    seen = attributes(otlp.span("chat gpt-4o-mini").attributes)
    assert json.loads(seen["gen_ai.input.messages"]) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": PROMPT},
                {"type": "blob", "mime_type": "image/png", "modality": "image", "content": "", "bytes": 5},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}},
                {"type": "tool_call", "id": "c2", "name": "look", "arguments": "{broken"},
            ],
        },
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "c1", "response": [{"type": "text", "content": "seen"}]}
            ],
        },
    ]
    assert json.loads(seen["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": REPLY}]}
    ]
    assert seen["gen_ai.output.type"] == "json"


@pytest.mark.parametrize("bad", ["", "00-xyz", f"00-{'0' * 32}-{CALLER}-01", "x" * 1000])
async def test_a_bad_context_begins_a_new_trace(otlp: Collector, bad: str) -> None:
    telemetry = build(settings(otlp), tuple)
    drive(telemetry, answered(FIRST), metadata={"traceparent": bad})
    await telemetry.shutdown()

    assert otlp.span(METHOD).parent_span_id == b""
    assert len({span.trace_id for span in otlp.spans}) == 1


async def test_what_the_caller_does_not_sample_is_not_sent_but_carried_on(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    (headers,) = drive(telemetry, answered(FIRST), metadata={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    await telemetry.shutdown()

    assert not otlp.spans
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")


async def test_a_ratio_of_0_samples_only_what_callers_do(otlp: Collector) -> None:
    telemetry = build(settings(otlp, ratio=0.0), tuple)
    drive(telemetry, answered(FIRST))
    drive(telemetry, answered(SECOND), metadata=W3C)
    await telemetry.shutdown()

    assert {span.trace_id.hex() for span in otlp.spans} == {TRACE}
    assert len(otlp.spans) == 3


@pytest.mark.parametrize("bad", ["", "00-xyz"])
async def test_a_bad_context_does_not_escape_the_ratio(otlp: Collector, bad: str) -> None:
    telemetry = build(settings(otlp, ratio=0.0), tuple)
    (headers,) = drive(telemetry, answered(FIRST), metadata={"traceparent": bad})
    await telemetry.shutdown()

    assert not otlp.spans
    assert headers["traceparent"].endswith("-00")


async def test_a_part_is_sampled_whole_and_upstreams_are_told_which(otlp: Collector) -> None:
    telemetry = build(settings(otlp, ratio=0.5), tuple)
    random.seed(1)
    sent = [drive(telemetry, failed(FIRST), answered(SECOND)) for _ in range(200)]
    await telemetry.shutdown()

    traces = [headers["traceparent"].split("-") for attempts in sent for headers in attempts]
    kept = {trace_id for _version, trace_id, _span, flags in traces if int(flags) % 2}
    assert 70 < len(kept) < 130
    assert len({trace_id for _version, trace_id, _span, _flags in traces}) == 200
    assert {span.trace_id.hex() for span in otlp.spans} == kept
    assert len(otlp.spans) == 4 * len(kept)


async def test_a_call_outside_of_any_rpc_is_sampled_too(otlp: Collector) -> None:
    telemetry = build(settings(otlp, ratio=0.0), tuple)
    call = fan_out(telemetry.observers).call(call_record().start)
    headers = call.attempt(FIRST).headers
    call.ended(call_record())
    await telemetry.shutdown()

    assert headers["traceparent"].endswith("-00")
    assert not otlp.spans


async def test_the_rpcs_span_is_current_until_it_ends_and_concurrent_rpcs_do_not_mix(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    observer, calls = fan_out_rpc(telemetry.rpc_observers), fan_out(telemetry.observers)
    both_began = asyncio.Barrier(2)

    async def serve(name: str) -> tuple[str, str]:
        start = RpcStart(f"service/{name}", name, "")
        rpc = observer.rpc(start)
        await both_began.wait()
        calls.call(CallStart(name, Operation.CHAT, name, CHAT)).ended(call_record())
        inside = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
        rpc.ended(RpcRecord(start, "OK", 0.1, rpc.trace_id))
        assert not trace.get_current_span().get_span_context().is_valid
        return rpc.trace_id, inside

    (a, a_inside), (b, b_inside) = await asyncio.gather(serve("a"), serve("b"))
    await telemetry.shutdown()

    assert (a, b) == (a_inside, b_inside)
    assert a != b
    for name, trace_id in (("a", a), ("b", b)):
        assert otlp.span(f"route {name}").trace_id.hex() == trace_id
        assert otlp.span(f"route {name}").parent_span_id == otlp.span(f"service/{name}").span_id


async def test_an_rpc_may_end_in_another_context(otlp: Collector) -> None:
    telemetry = build(settings(otlp), tuple)
    start = RpcStart("service/Elsewhere", "r", "")
    for observer in telemetry.rpc_observers:
        rpc = contextvars.copy_context().run(observer.rpc, start)
        rpc.ended(RpcRecord(start, "CANCELLED", 0.1, rpc.trace_id))
    await telemetry.shutdown()

    assert otlp.span("service/Elsewhere")


async def test_without_a_collector_the_callers_context_passes_through() -> None:
    telemetry = build(TelemetrySettings(log_format="json", log_level="error"), tuple)
    first, second = drive(telemetry, failed(FIRST), answered(SECOND), metadata=W3C)
    await telemetry.shutdown()

    assert first == second == W3C


def test_without_a_collector_a_log_line_names_the_trace_until_the_rpc_ends() -> None:
    rpc = Passthrough().rpc(RpcStart(METHOD, "r", ""))
    inside = current_trace_id()
    rpc.ended(RpcRecord(RpcStart(METHOD, "r", ""), "OK", 0.1))

    assert inside == rpc.trace_id
    assert current_trace_id() == ""


async def test_without_a_collector_there_is_a_trace_id_and_upstreams_are_not_told() -> None:
    telemetry = build(TelemetrySettings(log_format="json", log_level="error"), tuple)
    rpcs = fan_out_rpc(telemetry.rpc_observers)
    start = RpcStart(METHOD, "r", "")
    rpc, other = rpcs.rpc(start), rpcs.rpc(start)
    attempt = fan_out(telemetry.observers).call(call_record().start).attempt(FIRST)
    for one in (other, rpc):
        one.ended(RpcRecord(start, "OK", 0.1, one.trace_id))
    await telemetry.shutdown()

    assert attempt.headers == {}
    assert rpc.trace_id != other.trace_id
    assert len(rpc.trace_id) == 32
    assert int(rpc.trace_id, 16)
