"""What a span says of an RPC, a call, an attempt: records turned into attributes.

Pure functions. Contents of messages are not in here; see `content`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from router_server.core.observer import (
    AttemptRecord,
    AttemptStart,
    CallRecord,
    CallStart,
    RpcRecord,
    RpcStart,
)
from router_server.core.types import (
    ChatRequest,
    EmbedRequest,
    EngineTimes,
    JsonObject,
    JsonSchema,
    Operation,
    Usage,
)
from router_server.telemetry import semconv

Attributes = dict[str, Any]


def of_rpc_start(start: RpcStart) -> Attributes:
    """Return what is known when an RPC comes in."""
    return {
        semconv.RPC_SYSTEM_NAME: semconv.GRPC,
        semconv.RPC_METHOD: start.method,
        semconv.REQUEST_ID: start.request_id,
        **_of_peer(start.peer),
    }


def of_rpc_record(record: RpcRecord) -> Attributes:
    """Return what is known when an RPC is over."""
    attributes: Attributes = {semconv.RPC_RESPONSE_STATUS_CODE: record.code}
    if record.reason:
        attributes[semconv.REASON] = record.reason
    if record.principal:
        attributes[semconv.PRINCIPAL] = record.principal
        for name, said in record.principal_labels.items():
            attributes[f"{semconv.PRINCIPAL_LABEL}.{name}"] = said
    if record.code in semconv.RPC_SERVER_ERRORS:
        attributes[semconv.ERROR_TYPE] = record.code
    return attributes


def of_call_start(start: CallStart) -> Attributes:
    """Return what is known when a call is about to be routed."""
    return {
        semconv.ROUTE: start.route,
        semconv.OPERATION: start.operation.value,
        semconv.CALL_ID: start.call_id,
        **({semconv.ARM: start.arm} if start.arm else {}),
    }


def of_call_record(record: CallRecord) -> Attributes:
    """Return what is known when a call is over."""
    return _present(
        (semconv.ATTEMPTS, len(record.attempts)),
        (semconv.TARGET, record.target or None),
        (semconv.PROVIDER, record.provider or None),
        (semconv.ERROR_TYPE, record.error.value if record.error else None),
        (semconv.CANCELLED, record.cancelled or None),
        (semconv.REUSED, record.reused.value if record.reused else None),
        (semconv.PHASE, record.phase.value if record.phase else None),
        (semconv.TIME_TO_FIRST_TOKEN, record.time_to_first_token),
        (semconv.CALL_COST, record.cost_nano_usd),
    )


def of_attempt_start(start: AttemptStart) -> Attributes:
    """Return what is known when a target is about to be asked."""
    attributes = _present(
        (semconv.GEN_AI_OPERATION_NAME, semconv.operation_name(start.operation)),
        (semconv.GEN_AI_PROVIDER_NAME, semconv.provider_name(start.kind)),
        (semconv.GEN_AI_REQUEST_MODEL, start.model),
        (semconv.GEN_AI_REQUEST_STREAM, True if start.operation is Operation.STREAM else None),
        (semconv.SERVER_ADDRESS, start.server_address or None),
        (semconv.SERVER_PORT, start.server_port),
        (semconv.ROUTE, start.route),
        (semconv.TARGET, start.target),
        (semconv.PROVIDER, start.provider),
        (semconv.ENDPOINT, start.endpoint or None),
        (semconv.ATTEMPT_NUMBER, start.number),
    )
    if isinstance(start.request, ChatRequest):
        attributes.update(_of_chat(start.request))
    if isinstance(start.request, EmbedRequest) and start.request.dimensions is not None:
        attributes[semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] = start.request.dimensions
    return attributes


def of_attempt_record(record: AttemptRecord) -> Attributes:
    """Return what is known when an attempt is over; ``error.type`` is not among it."""
    return {
        **_present(
            (semconv.OUTCOME, record.outcome.value),
            (semconv.ATTEMPT_QUEUE_WAIT, record.queue_wait),
            (semconv.ATTEMPT_ERROR_REASON, record.error_reason or None),
            (semconv.ATTEMPT_HTTP_STATUS, record.status),
            (semconv.GEN_AI_RESPONSE_MODEL, record.reported_model or None),
            (semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, record.time_to_first_token),
            (semconv.ATTEMPT_TIME_PER_TOKEN, record.time_per_token),
            (semconv.ATTEMPT_TOKENS_PER_SECOND, record.tokens_per_second),
            (semconv.GEN_AI_RESPONSE_FINISH_REASONS, _finish_reasons(record)),
        ),
        **(_of_usage(record.usage) if record.usage else {}),
        **(_of_engine(record.engine) if record.engine else {}),
    }


def _of_chat(request: ChatRequest) -> Attributes:
    generation = request.generation
    effort = generation.reasoning_effort
    wants_json = isinstance(request.response_format, JsonObject | JsonSchema)
    return _present(
        (semconv.GEN_AI_REQUEST_MAX_TOKENS, generation.max_output_tokens),
        (semconv.GEN_AI_REQUEST_TEMPERATURE, generation.temperature),
        (semconv.GEN_AI_REQUEST_TOP_P, generation.top_p),
        (semconv.GEN_AI_REQUEST_TOP_K, generation.top_k),
        (semconv.GEN_AI_REQUEST_SEED, generation.seed),
        (semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, generation.presence_penalty),
        (semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, generation.frequency_penalty),
        (semconv.GEN_AI_REQUEST_REASONING_LEVEL, effort.value if effort else None),
        (semconv.GEN_AI_OUTPUT_TYPE, semconv.OUTPUT_TYPE_JSON if wants_json else None),
    )


def _of_usage(usage: Usage) -> Attributes:
    return _present(
        (semconv.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens),
        (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens),
        (semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read_input_tokens or None),
        (semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, usage.cache_write_input_tokens or None),
        (semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning_output_tokens or None),
        (semconv.ATTEMPT_COST, usage.cost_nano_usd),
    )


def _of_engine(times: EngineTimes) -> Attributes:
    return _present(
        (semconv.ENGINE_QUEUE_TIME, times.queue),
        (semconv.ENGINE_PREFILL_TIME, times.prefill),
        (semconv.ENGINE_DECODE_TIME, times.decode),
    )


def _finish_reasons(record: AttemptRecord) -> tuple[str, ...] | None:
    if record.finish_reason is not None:
        return (semconv.finish_reason(record.finish_reason),)
    return (semconv.FINISH_ERROR,) if record.time_to_first_token is not None else None


def _of_peer(peer: str) -> Attributes:
    """Read a peer as gRPC writes it: ``ipv4:127.0.0.1:5000``, ``ipv6:%5B::1%5D:5000``, ``unix:/a.sock``."""
    family, _, rest = unquote(peer).partition(":")
    if family == "unix":
        return _present((semconv.NETWORK_TRANSPORT, "unix"), (semconv.CLIENT_ADDRESS, rest or None))
    if family not in {"ipv4", "ipv6"}:
        return {}
    host, _, port = rest.rpartition(":")
    return _present(
        (semconv.NETWORK_TRANSPORT, "tcp"),
        (semconv.CLIENT_ADDRESS, host.strip("[]") or None),
        (semconv.CLIENT_PORT, int(port) if port.isdecimal() else None),
    )


def _present(*pairs: tuple[str, Any]) -> Attributes:
    return dict(_known(pairs))


def _known(pairs: tuple[tuple[str, Any], ...]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in pairs if value is not None)
