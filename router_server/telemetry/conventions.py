"""The metrics that OpenTelemetry names: of RPCs, and of what is asked of models.

The names come from where `semconv` says.
"""

from __future__ import annotations

from typing import Final

from router_server.telemetry.metric import SECONDS, TOKEN_SECONDS, TOKENS, Instrument, Metric
from router_server.telemetry.semconv import (
    ERROR_TYPE,
    GEN_AI_OPERATION_NAME,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_TOKEN_MODALITY,
    RPC_METHOD,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
)

UPSTREAM_LABELS: Final = (
    GEN_AI_OPERATION_NAME,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    SERVER_ADDRESS,
    SERVER_PORT,
)
"""What tells one upstream and model from another, in every ``gen_ai`` metric."""

_WITH_ERROR: Final = (*UPSTREAM_LABELS, ERROR_TYPE)
_WITH_MODALITY: Final = (*UPSTREAM_LABELS, GEN_AI_TOKEN_MODALITY)

_H, _C = Instrument.HISTOGRAM, Instrument.COUNTER

RPC_DURATION: Final = Metric(
    "rpc.server.call.duration",
    _H,
    "s",
    "How long the router's own RPCs took, streams until their end",
    (RPC_SYSTEM_NAME, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, ERROR_TYPE),
    SECONDS,
)
INFERENCE_DURATION: Final = Metric(
    "gen_ai.client.inference.duration", _H, "s", "How long each attempt took", _WITH_ERROR, SECONDS
)
TIME_TO_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_to_first_chunk",
    _H,
    "s",
    "From the permit to the first event of a streamed answer",
    UPSTREAM_LABELS,
    SECONDS,
)
TIME_PER_OUTPUT_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_per_output_chunk",
    _H,
    "s",
    "Mean time between the tokens of a streamed answer, one value per attempt",
    UPSTREAM_LABELS,
    TOKEN_SECONDS,
)
USAGE_INPUT: Final = Metric(
    "gen_ai.client.inference.usage.input_tokens",
    _C,
    "{token}",
    "Input tokens used, cached ones included",
    _WITH_MODALITY,
)
USAGE_OUTPUT: Final = Metric(
    "gen_ai.client.inference.usage.output_tokens",
    _C,
    "{token}",
    "Output tokens used, reasoning included",
    _WITH_MODALITY,
)
USAGE_CACHE_READ: Final = Metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    _C,
    "{token}",
    "Input tokens that the provider's cache served",
    _WITH_MODALITY,
)
USAGE_CACHE_WRITE: Final = Metric(
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    _C,
    "{token}",
    "Input tokens written to the provider's cache",
    _WITH_MODALITY,
)
USAGE_REASONING: Final = Metric(
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    _C,
    "{token}",
    "Output tokens spent on reasoning",
    _WITH_MODALITY,
)
OPERATION_INPUT: Final = Metric(
    "gen_ai.client.inference.operation.input_tokens",
    _H,
    "{token}",
    "Input tokens of one attempt",
    UPSTREAM_LABELS,
    TOKENS,
)
OPERATION_OUTPUT: Final = Metric(
    "gen_ai.client.inference.operation.output_tokens",
    _H,
    "{token}",
    "Output tokens of one attempt",
    UPSTREAM_LABELS,
    TOKENS,
)
EMBEDDINGS_DURATION: Final = Metric(
    "gen_ai.client.embeddings.duration",
    _H,
    "s",
    "How long each attempt at embedding took",
    _WITH_ERROR,
    SECONDS,
)
EMBEDDINGS_INPUT: Final = Metric(
    "gen_ai.client.embeddings.operation.input_tokens",
    _H,
    "{token}",
    "Input tokens of one attempt at embedding",
    UPSTREAM_LABELS,
    TOKENS,
)

METRICS: Final[tuple[Metric, ...]] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
"""All of them, in the order of this file."""
