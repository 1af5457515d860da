"""Gemini's answers and chunks in one line, and what is read in them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.intake import assemble
from router_server.core.opaque import seal
from router_server.core.types import (
    Answer,
    Delta,
    Finish,
    FinishReason,
    Part,
    StreamItem,
    Usage,
)
from router_server.providers._gemini_answer import read_answer
from router_server.providers._gemini_stream import StreamedAnswer

MODEL = "gemini-3.1-pro-preview"


def chunk(*parts: Any, finish: str = "", usage: Any = None, **rest: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    candidate.update({name: rest.pop(name) for name in ("logprobsResult",) if name in rest})
    return {"candidates": [candidate], **({"usageMetadata": usage} if usage else {}), **rest}


def call(name: str, arguments: Any = None, identity: str = "") -> dict[str, Any]:
    function = {"name": name, **({"id": identity} if identity else {})}
    return {"functionCall": function if arguments is None else {**function, "args": arguments}}


def read(value: Any) -> Answer:
    return read_answer(json.dumps(value).encode(), MODEL, 60.0)


def stream(*chunks: Any) -> list[StreamItem]:
    answer = StreamedAnswer(MODEL, 60.0)
    items = [item for one in chunks for item in answer.take([json.dumps(one).encode()])]
    answer.end()
    return items


def deltas(items: Sequence[StreamItem]) -> list[Delta]:
    return [item for item in items if isinstance(item, Delta)]


def parts(items: Sequence[StreamItem]) -> tuple[Part, ...]:
    return assemble(deltas(items)).content


def finish(items: Sequence[StreamItem]) -> FinishReason:
    [reason] = [item.reason for item in items if isinstance(item, Finish)]
    return reason


def failure(*chunks: Any, unary: bool = False) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        _ = read(chunks[0]) if unary else stream(*chunks)
    return caught.value


def sealed(signature: str) -> bytes:
    return seal("gemini", MODEL, signature.encode())


USAGE = {
    "promptTokenCount": 10,
    "cachedContentTokenCount": 4,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 25,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
}
OUR_USAGE = Usage(13, 12, cache_read_input_tokens=4, reasoning_output_tokens=7)
