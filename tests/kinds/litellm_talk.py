"""What the tests of the kind ``litellm`` share: providers, and answers in Anthropic's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router_server.core.provider import Provider, Surroundings
from router_server.providers.litellm import KIND
from tests.upstream import LAST_CHUNK, SSE_HEAD, Step, Steps, chunk

LITELLM_MARKS = [
    pytest.mark.kinds,
    # litellm silences them when it is imported, and pytest gives every test its own filters.
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier"),
    pytest.mark.filterwarnings("ignore:Accessing the .* attribute on the instance is deprecated"),
]
KEY = "sk-very-secret"
CAP = 60.0
"""The longest Retry-After that is believed, seconds."""


def provider_at(base_url: str, **settings: Any) -> Provider:
    made: Provider = KIND.create(
        KIND.settings(**{"base_url": base_url, "api_key": KEY, **settings}),
        Surroundings("x", retry_after_cap=CAP),
    )
    return made


def anthropic_event(kind: str, **fields: Any) -> bytes:
    """Return one event of Anthropic's stream as one chunk."""
    return chunk(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())


ANTHROPIC_START = anthropic_event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4},
    },
)


def anthropic_block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> tuple[Step, ...]:
    """Return the events of one content block."""
    return (
        anthropic_event("content_block_start", index=index, content_block=block),
        *(anthropic_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        anthropic_event("content_block_stop", index=index),
    )


def anthropic_end(reason: str) -> tuple[Step, ...]:
    """Return the events of the end, with usage."""
    return (
        anthropic_event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 7}),
        anthropic_event("message_stop"),
        LAST_CHUNK,
    )


def anthropic_stream(*steps: Step) -> Steps:
    """Return a reply that begins as Anthropic's streams do."""
    return (*SSE_HEAD, ANTHROPIC_START, *steps)
