"""What a collector, an upstream and the log are told of calls through the whole server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from modelrouter.v1 import embed_pb2
from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving, two_targets
from tests.e2e.test_embed import embeds
from tests.e2e.test_upstream_failures import refusal
from tests.telemetry.collector import Collector, attributes, collector
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event, json_reply, sse_reply

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
W3C = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "vendor=opaque"))

PROMPT = "what is the launch code"
REPLY = "the launch code is 1234"

ANSWERS: dict[str, Reply] = {
    "Chat": json_reply(answer()),
    "StreamChat": sse_reply(pieces("Hi")),
    "Embed": embeds,
}

SERVICE = "modelrouter.v1.ModelRouterService"


@asynccontextmanager
async def traced(
    *, extra: str = "", telemetry: str = "", recovery: str = "none"
) -> AsyncIterator[tuple[Served, Upstream, Upstream, Collector]]:
    """A server with two upstreams of one model, whose spans are in the collector once it has been left."""
    async with collector() as otlp, Upstream() as a, Upstream() as b:
        text = two_targets(a, b, extra=extra, recovery=recovery)
        text = text.replace("model: model-a", "model: model-x").replace("model: model-b", "model: model-x")
        text += f"telemetry: {{otlp_endpoint: '{otlp.url}', log: {{format: json}}{telemetry}}}\n"
        async with serving(text) as it:
            yield it, a, b, otlp


def said(span: Span) -> dict[str, Any]:
    return attributes(span.attributes)


def attempts(otlp: Collector) -> list[Span]:
    clients = [span for span in otlp.spans if span.kind == Span.SPAN_KIND_CLIENT]
    return sorted(clients, key=lambda span: said(span)["modelrouter.attempt.number"])


def of_kind(otlp: Collector, kind: Any) -> Span:
    [span] = [span for span in otlp.spans if span.kind == kind]
    return span


async def ask(it: Served, method: str, **call: Any) -> Any:
    if method == "StreamChat":
        return await events_of(it.stub.StreamChat(chat(), **call))
    if method == "Embed":
        inputs = [embed_pb2.EmbedInput(text="cat")]
        return await it.stub.Embed(embed_pb2.EmbedRequest(model="chat", inputs=inputs), **call)
    return await it.stub.Chat(chat(), **call)


@pytest.mark.parametrize("method", ANSWERS)
async def test_attempts_are_siblings_and_each_upstream_sees_its_own(method: str) -> None:
    async with traced() as (it, a, b, otlp):
        a.always(refusal(503))
        b.always(ANSWERS[method])
        await ask(it, method, metadata=W3C)
    rpc, route = of_kind(otlp, Span.SPAN_KIND_SERVER), of_kind(otlp, Span.SPAN_KIND_INTERNAL)
    tries = attempts(otlp)
    assert {span.trace_id.hex() for span in otlp.spans} == {TRACE}
    assert (rpc.name, rpc.parent_span_id.hex()) == (f"{SERVICE}/{method}", CALLER)
    assert (route.name, route.parent_span_id) == ("route chat", rpc.span_id)
    assert {span.parent_span_id for span in tries} == {route.span_id}
    asked = [*a.requests, *b.requests]
    assert [request.headers["traceparent"] for request in asked] == [
        f"00-{TRACE}-{span.span_id.hex()}-01" for span in tries
    ]
    assert {request.headers["tracestate"] for request in asked} == {"vendor=opaque"}
    assert not [happened for span in otlp.spans for happened in span.events], "nothing per token"
    *failed, last = tries
    for span in failed:
        assert said(span)["modelrouter.outcome"] == "unavailable"
        assert said(span)["http.response.status_code"] == 503
        assert span.status.code == Status.STATUS_CODE_ERROR
    assert [said(span)["modelrouter.target"] for span in tries] == ["a1", "a1", "b1"]
    assert said(last)["gen_ai.usage.input_tokens"] == (1 if method == "Embed" else 3)
    assert last.status.code == rpc.status.code == Status.STATUS_CODE_UNSET
    assert said(rpc)["rpc.response.status_code"] == "OK"
    for span in tries:
        assert rpc.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= route.end_time_unix_nano <= rpc.end_time_unix_nano


async def test_a_call_without_a_trace_begins_one_and_tells_its_caller() -> None:
    async with traced() as (it, a, _b, otlp):
        a.always(json_reply(answer()))
        call = it.stub.Chat(chat())
        await call
        metadata = dict(await call.trailing_metadata())
        assert a.requests[0].headers["traceparent"].split("-")[1] == metadata["x-trace-id"]
    rpc = of_kind(otlp, Span.SPAN_KIND_SERVER)
    assert rpc.trace_id.hex() == metadata["x-trace-id"]
    assert not rpc.parent_span_id
    assert said(rpc)["modelrouter.request.id"] == metadata["x-request-id"]


async def test_a_provider_that_shall_not_see_traces_sees_none() -> None:
    async with traced(extra=", trace_context: false") as (it, a, b, otlp):
        a.always(refusal(503))
        b.always(json_reply(answer()))
        await it.stub.Chat(chat(), metadata=W3C)
        assert not {"traceparent", "tracestate"} & {name for r in a.requests for name in r.headers}
        assert b.requests[0].headers["traceparent"].split("-")[1] == TRACE
    assert len(attempts(otlp)) == 3, "they are traced all the same"


async def test_a_failed_call_and_a_refused_one_are_traced_too() -> None:
    async with traced() as (it, a, b, otlp):
        for upstream in (a, b):
            upstream.always(refusal(503))
        await fails(it.stub.StreamChat(chat()))
        await fails(it.stub.Chat(chat("nobody")))
    spans = {said(span).get("modelrouter.reason"): span for span in otlp.spans}
    failed, refused = spans["ALL_TARGETS_FAILED"], spans["MODEL_NOT_FOUND"]
    assert said(failed)["rpc.response.status_code"] == "UNAVAILABLE"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert refused.status.code == Status.STATUS_CODE_UNSET, "that was the caller's mistake"
    assert len(attempts(otlp)) == 4
    route = of_kind(otlp, Span.SPAN_KIND_INTERNAL)
    assert said(route)["error.type"] == "ALL_TARGETS_FAILED"


async def test_a_stream_that_starts_over_has_both_its_attempts() -> None:
    async with traced(recovery="restart") as (it, a, b, otlp):
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.RESET))
        b.always(sse_reply(pieces("Hel", "lo")))
        await events_of(it.stub.StreamChat(chat()))
    first, second = attempts(otlp)
    assert said(first)["gen_ai.usage.output_tokens"] == 1, "what the broken one cost"
    assert said(first)["gen_ai.response.finish_reasons"] == ["error"]
    assert said(second)["gen_ai.response.finish_reasons"] == ["stop"]


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("record", [False, True], ids=["not-recorded", "recorded"])
async def test_contents_are_recorded_only_where_asked_for(*, record: bool, streaming: bool) -> None:
    async with traced(telemetry=f", record_content: {str(record).lower()}") as (it, a, _b, otlp):
        request = chat(text=PROMPT, userId="user-4711", labels={"team": "team-0815"})
        if streaming:
            a.always(sse_reply(pieces(*[f"{word} " for word in REPLY.split()])))
            await events_of(it.stub.StreamChat(request))
        else:
            a.always(json_reply(answer(REPLY)))
            await it.stub.Chat(request)
    everything = otlp.everything()
    assert otlp.metrics, "metrics go the same way"
    assert (PROMPT in everything, REPLY in everything) == (record, record)
    if record:
        told = said(attempts(otlp)[0])
        assert PROMPT in told["gen_ai.input.messages"]
        assert REPLY in told["gen_ai.output.messages"]
    assert "team-0815" not in everything
    assert "user-4711" not in everything


def access_lines(server: ServerProcess) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    return [line for line in lines if line["logger"] == "router_server.access"]


async def test_each_call_is_one_line_of_the_log(tmp_path: Path) -> None:
    async with Upstream() as a, Upstream() as b:
        text = two_targets(a, b) + "telemetry: {log: {format: json}}\n"
        async with served(tmp_path, text, server="drain_delay: 0s\ndeadline: {unary: 600ms}") as server:
            a.then(refusal(503), refusal(503)).then(json_reply(answer()), refusal(400)).always((End.STALL,))
            b.always(sse_reply(pieces("Hi")))
            metadata = (("x-request-id", "mine"), *W3C)
            await events_of(server.stub.StreamChat(chat(), metadata=metadata))
            await server.stub.Chat(chat())
            await fails(server.stub.Chat(chat("only-a")))
            await fails(server.stub.Chat(chat("only-a")))
            server.process.terminate()
            await server.exit_code(within=20)
    stream, unary, refused, late = access_lines(server)
    assert {name: stream[name] for name in stream if name not in _MEASURED} == {
        "level": "info",
        "logger": "router_server.access",
        "message": "StreamChat OK",
        "request_id": "mine",
        "trace_id": TRACE,
        "method": f"{SERVICE}/StreamChat",
        "code": "OK",
        "route": "chat",
        "target": "b1",
        "provider": "b",
        "model": "model-b",
        "attempts": 3,
        "trail": ["a1:unavailable/http_503", "a1:unavailable/http_503", "b1:ok"],
        "input_tokens": 3,
        "output_tokens": 2,
    }
    assert 0 < stream["ttft_ms"] <= stream["duration_ms"]
    assert (unary["message"], unary["target"], unary["attempts"]) == ("Chat OK", "a1", 1)
    assert (refused["level"], refused["reason"]) == ("info", "INVALID_REQUEST")
    assert (late["level"], late["code"]) == ("warning", "DEADLINE_EXCEEDED")
    assert len({line["trace_id"] for line in (stream, unary, refused, late)}) == 4


_MEASURED = {"time", "duration_ms", "ttft_ms", "peer"}
