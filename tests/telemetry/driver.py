"""Drives observers with records, in the order in which the core and the RPC layer do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router_server.core.errors import Outcome, Reason
from router_server.core.observer import (
    AttemptRecord,
    AttemptStart,
    CallRecord,
    CallStart,
    Failover,
    RpcRecord,
    RpcStart,
)
from router_server.core.observers import fan_out, fan_out_rpc
from router_server.core.types import (
    ChatRequest,
    EmbedRequest,
    EngineTimes,
    FinishReason,
    Generation,
    Message,
    Operation,
    Role,
    Text,
    Usage,
)
from router_server.telemetry import Telemetry

PROMPT = "what is the launch code"
REPLY = "the launch code is 1234"
CHAT = ChatRequest(
    model="chat-default",
    messages=(Message(Role.USER, (Text(PROMPT),)),),
    generation=Generation(max_output_tokens=256, temperature=0.5, top_p=0.9, seed=7),
    user_id="user-4711",
    labels={"team": "team-0815"},
)
EMBED = EmbedRequest(model="embed-default", inputs=("a secret cat",), dimensions=256)
METHOD = "modelrouter.v1.ModelRouterService/StreamChat"
USAGE = Usage(12, 34, 5, 6, 7, cost_nano_usd=2_500_000_000)


def attempt_start(number: int = 1, target: str = "openai-mini", **changes: Any) -> AttemptStart:
    fields: dict[str, Any] = {
        "call_id": "call-1",
        "operation": Operation.STREAM,
        "route": "chat-default",
        "target": target,
        "provider": "openai",
        "kind": "openai",
        "model": "gpt-4o-mini",
        "number": number,
        "server_address": "api.openai.com",
        "server_port": 443,
        "request": CHAT,
    }
    return AttemptStart(**{**fields, **changes})


def failed(start: AttemptStart, outcome: Outcome = Outcome.UNAVAILABLE, **changes: Any) -> AttemptRecord:
    fields: dict[str, Any] = {"duration": 0.25, "queue_wait": 0.05, "error_reason": "http_503", "status": 503}
    return AttemptRecord(start, outcome, **{**fields, **changes})


def answered(start: AttemptStart, **changes: Any) -> AttemptRecord:
    fields: dict[str, Any] = {
        "duration": 2.0,
        "queue_wait": 0.01,
        "time_to_first_token": 0.5,
        "time_per_token": 0.02,
        "usage": USAGE,
        "reported_model": "gpt-4o-mini-2024-07-18",
        "finish_reason": FinishReason.STOP,
        "answer": Message(Role.ASSISTANT, (Text(REPLY),)),
        "engine": EngineTimes(0.004, 0.2, 1.5),
    }
    return AttemptRecord(start, Outcome.OK, **{**fields, **changes})


FIRST = attempt_start()
SECOND = attempt_start(
    2,
    "gemini-flash",
    provider="google",
    kind="gemini",
    model="gemini-2.5-flash",
    server_address="generativelanguage.googleapis.com",
)


def call_record(*attempts: AttemptRecord, start: CallStart | None = None, **changes: Any) -> CallRecord:
    last = attempts[-1] if attempts else None
    good = last is not None and last.outcome is Outcome.OK
    fields: dict[str, Any] = {
        "duration": 2.5,
        "attempts": attempts,
        "target": last.start.target if last and good else "",
        "provider": last.start.provider if last and good else "",
        "model": last.start.model if last and good else "",
        "time_to_first_token": 0.8 if good else None,
        "usage": last.usage if last else None,
        "error": None if good else Reason.ALL_TARGETS_FAILED,
        "user_id": "user-4711",
        "labels": {"team": "team-0815"},
    }
    start = start or CallStart("call-1", Operation.STREAM, "chat-default", CHAT)
    return CallRecord(start, **{**fields, **changes})


PRINCIPAL = "key/search"


def drive(
    telemetry: Telemetry,
    *attempts: AttemptRecord,
    code: str = "OK",
    metadata: Mapping[str, str] | None = None,
    call: CallRecord | None = None,
    peer: str = "ipv4:127.0.0.1:40000",
) -> list[Mapping[str, str]]:
    """Play one RPC with these attempts; returns the headers that each attempt was given."""
    record = call or call_record(*attempts)
    rpc_start = RpcStart(METHOD, "req-1", peer, metadata or {})
    rpc = fan_out_rpc(telemetry.rpc_observers).rpc(rpc_start)
    seen = fan_out(telemetry.observers).call(record.start)
    headers: list[Mapping[str, str]] = []
    for before, attempt in zip((None, *attempts), attempts, strict=False):
        if before is not None:
            failover = Failover(record.start.route, before.start.target, attempt.start.target, before.outcome)
            seen.failed_over(failover)
        observed = seen.attempt(attempt.start)
        headers.append(observed.headers)
        observed.ended(attempt)
    seen.ended(record)
    reason = record.error.value if record.error else ""
    rpc.ended(RpcRecord(rpc_start, code, 2.6, rpc.trace_id, reason, record, PRINCIPAL))
    return headers
