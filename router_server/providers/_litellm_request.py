"""A call becomes the arguments of ``litellm.acompletion`` or ``litellm.aembedding``. Pure.

litellm takes what OpenAI's wire takes and translates it for each provider. Refuses to know how it is called.
"""

from __future__ import annotations

import json
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamChat, UpstreamEmbed
from router_server.core.types import EmbeddingTask, Json, Role
from router_server.providers._litellm_thoughts import blocks_of
from router_server.providers._openai_wire_request import Dialect, chat_body

CALLERS_OPTIONS: Final = frozenset(
    {
        "audio",
        "frequency_penalty",
        "guardrailConfig",
        "input_type",
        "logit_bias",
        "min_p",
        "modalities",
        "parallel_tool_calls",
        "performanceConfig",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "repetition_penalty",
        "safety_identifier",
        "safety_settings",
        "seed",
        "service_tier",
        "stop",
        "store",
        "task_type",
        "temperature",
        "thinking",
        "top_k",
        "top_p",
        "truncate",
        "verbosity",
        "web_search_options",
    }
)
"""What provider_options may name. Only these: litellm's arguments also say where a call goes, with whose
credentials, what is logged where, and which files are read."""

_TASKS: Final = {EmbeddingTask.QUERY: "search_query", EmbeddingTask.DOCUMENT: "search_document"}
"""Cohere's words, which litellm takes for every provider that distinguishes."""

_DIALECT: Final = Dialect()


def chat_arguments(call: UpstreamChat, *, stream: bool) -> dict[str, Any]:
    """Return what a chat is asked with.

    Raises:
        UpstreamError: INVALID_REQUEST: an option is refused, or the request cannot be said so.
    """
    _require_allowed(call.options)
    arguments: dict[str, Any] = json.loads(chat_body(call, _DIALECT, stream=stream))
    said = [message for message in call.messages if message.role is Role.ASSISTANT]
    turns = [turn for turn in arguments["messages"] if turn["role"] == Role.ASSISTANT]
    for message, turn in zip(said, turns, strict=False):  # one more where an answer is continued
        if blocks := blocks_of(message, call.model):
            turn["thinking_blocks"] = blocks
    return {**arguments, **_headers(call)}


def embed_arguments(call: UpstreamEmbed) -> dict[str, Any]:
    """Return what a batch of texts is embedded with.

    Raises:
        UpstreamError: INVALID_REQUEST: an option is refused.
    """
    _require_allowed(call.options)
    request = call.request
    arguments: dict[str, Any] = {"model": call.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        arguments["dimensions"] = request.dimensions
    if request.task is not None:
        arguments["input_type"] = _TASKS[request.task]
    return {**arguments, **call.options, **_headers(call)}


def _require_allowed(options: Json) -> None:
    if not CALLERS_OPTIONS.issuperset(options):
        raise UpstreamError(Outcome.INVALID_REQUEST, "provider_option_refused")


def _headers(call: UpstreamChat | UpstreamEmbed) -> dict[str, Any]:
    return {"extra_headers": dict(call.headers)} if call.headers else {}
