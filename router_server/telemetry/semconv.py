"""The names and values of span attributes and metric labels; the metrics themselves are in `instruments`.

Literals rather than the constants of opentelemetry-semantic-conventions, whose GenAI module is deprecated
in place and has been renamed before. Sources: the RPC conventions of semantic-conventions 1.44.0; for
``gen_ai.*`` the repository semantic-conventions-genai, in development, as of October 2026, where
``gen_ai.client.operation.*`` and ``gen_ai.client.token.usage`` became ``gen_ai.client.inference.*``. When
they move again, this file and `instruments` move, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router_server.core.types import FinishReason, Operation

SCOPE: Final = "router_server"
"""The instrumentation scope of every span and metric."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# General attributes
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CLIENT_ADDRESS: Final = "client.address"
CLIENT_PORT: Final = "client.port"
NETWORK_TRANSPORT: Final = "network.transport"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# Attributes of an RPC
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
GRPC: Final = "grpc"

RPC_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The gRPC codes that are a server's fault; the others are the caller's and leave a span's status unset."""

# Attributes of a call to a model
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_TOKEN_MODALITY: Final = "gen_ai.token.modality"  # noqa: S105 - an attribute, not a password
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

MODALITY_UNKNOWN: Final = "unknown"
"""Upstreams report one number for all modalities of a request."""

OUTPUT_TYPE_JSON: Final = "json"

FINISH_ERROR: Final = "error"
"""The finish reason of a generation that began and did not end as it should."""

# Attributes of the router's own
ROUTE: Final = "modelrouter.route"
TARGET: Final = "modelrouter.target"
PROVIDER: Final = "modelrouter.provider"
ENDPOINT: Final = "modelrouter.endpoint"
OPERATION: Final = "modelrouter.operation"
OUTCOME: Final = "modelrouter.outcome"
REASON: Final = "modelrouter.reason"
CALL_ID: Final = "modelrouter.call.id"
ARM: Final = "modelrouter.arm"
CANCELLED: Final = "modelrouter.call.cancelled"
REUSED: Final = "modelrouter.call.reused"
PHASE: Final = "modelrouter.call.phase"
ATTEMPTS: Final = "modelrouter.call.attempts"
ATTEMPT_NUMBER: Final = "modelrouter.attempt.number"
ATTEMPT_QUEUE_WAIT: Final = "modelrouter.attempt.queue_wait"
ATTEMPT_TIME_PER_TOKEN: Final = "modelrouter.attempt.time_per_token"  # noqa: S105 - a duration, not a password
ATTEMPT_TOKENS_PER_SECOND: Final = "modelrouter.attempt.tokens_per_second"
ATTEMPT_COST: Final = "modelrouter.attempt.cost_nano_usd"
CALL_COST: Final = "modelrouter.call.cost_nano_usd"
ENGINE_QUEUE_TIME: Final = "modelrouter.engine.queue_time"
ENGINE_PREFILL_TIME: Final = "modelrouter.engine.prefill_time"
ENGINE_DECODE_TIME: Final = "modelrouter.engine.decode_time"
ATTEMPT_ERROR_REASON: Final = "modelrouter.attempt.error_reason"
ATTEMPT_HTTP_STATUS: Final = "http.response.status_code"
TIME_TO_FIRST_TOKEN: Final = "modelrouter.time_to_first_token"  # noqa: S105 - a duration, not a password
REQUEST_ID: Final = "modelrouter.request.id"
PRINCIPAL: Final = "modelrouter.principal"
PRINCIPAL_LABEL: Final = "modelrouter.principal.label"

# Metric labels that Prometheus users type, hence short
LABEL_ROUTE: Final = "route"
LABEL_ARM: Final = "arm"
LABEL_REUSED: Final = "reused"
LABEL_TARGET: Final = "target"
LABEL_PROVIDER: Final = "provider"
LABEL_ENDPOINT: Final = "endpoint"
LABEL_BUDGET: Final = "budget"
LABEL_PERIOD: Final = "period"
LABEL_PHASE: Final = "phase"
LABEL_OUTCOME: Final = "outcome"
LABEL_OPERATION: Final = "operation"
LABEL_FROM: Final = "from"
LABEL_TO: Final = "to"
LABEL_REASON: Final = "reason"
LABEL_WON: Final = "won"
LABEL_DIRECTION: Final = "direction"
LABEL_STATE: Final = "state"
LABEL_PRINCIPAL: Final = "principal"
LABEL_CODE: Final = "code"

INPUT: Final = "input"
OUTPUT: Final = "output"

WON: Final[Mapping[bool, str]] = {True: "true", False: "false"}

BREAKER_STATES: Final[Mapping[str, int]] = {"closed": 0, "half_open": 1, "open": 2}

_OPERATION_NAMES: Final[Mapping[Operation, str]] = {
    Operation.CHAT: "chat",
    Operation.STREAM: "chat",
    Operation.EMBED: "embeddings",
}
_PROVIDER_NAMES: Final[Mapping[str, str]] = {"gemini": "gcp.gemini"}
_FINISH_REASONS: Final[Mapping[FinishReason, str]] = {FinishReason.TOOL_CALLS: "tool_call"}


def operation_name(operation: Operation) -> str:
    """Return the GenAI name of an operation."""
    return _OPERATION_NAMES[operation]


def provider_name(kind: str) -> str:
    """Return the well-known name of a provider's kind, or the kind where there is none."""
    return _PROVIDER_NAMES.get(kind, kind)


def finish_reason(reason: FinishReason) -> str:
    """Return the GenAI name of a finish reason."""
    return _FINISH_REASONS.get(reason, reason.value)
