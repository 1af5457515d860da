"""What the tests of the OpenAI wire share: chunks as servers send them, calls, and answers put together."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.provider import Provider, UpstreamChat
from router_server.core.reading import Reads
from router_server.core.types import (
    ChatRequest,
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Usage,
)
from router_server.providers._openai_wire_stream import StreamedAnswer

HELLO = (Message(Role.USER, (Text("Hello?"),)),)


def call(*messages: Message, model: str = "m", **fields: Any) -> UpstreamChat:
    """Return a call; ``fields`` are of the request, but for those that only the upstream's call has."""
    of_call = {
        name: fields.pop(name)
        for name in ("options", "headers", "priority", "continuation", "connect_timeout")
        if name in fields
    }
    return UpstreamChat(model, ChatRequest("route", messages or HELLO, **fields), **of_call)


def chunk_of(delta: object = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a stream."""
    choice: dict[str, Any] = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    choice.update({name: more.pop(name) for name in ("logprobs",) if name in more})
    return {"id": "c", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **more}


def text_chunks(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    """Return the chunks of a text as OpenAI sends them."""
    first = chunk_of({"role": "assistant", "content": "", "refusal": None})
    return [first, *(chunk_of({"content": text}) for text in texts), chunk_of(finish=finish)]


def tool_chunk(**fragment: Any) -> dict[str, Any]:
    """Return a chunk with one fragment of a tool call; name and arguments go into its function."""
    function = {name: fragment.pop(name) for name in ("name", "arguments") if name in fragment}
    return chunk_of({"tool_calls": [{**fragment, "function": function}]})


USAGE_CHUNK = {
    "id": "c",
    "model": "m-1",
    "choices": [],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
USAGE = Usage(11, 7, cache_read_input_tokens=5, reasoning_output_tokens=3)


@dataclass
class Assembled:
    """A stream put together: one entry per part, ``(kind, text, call id, name)``."""

    parts: list[tuple[DeltaKind, str, str, str]] = field(default_factory=list)
    finish: FinishReason | None = None
    usage: Usage | None = None
    model: str = ""
    logprobs: list[str] = field(default_factory=list)


def assemble(items: Iterable[StreamItem]) -> Assembled:
    """Put a stream together, and check its grammar on the way."""
    whole = Assembled()
    for item in items:
        if isinstance(item, Delta):
            assert whole.finish is None, "a delta after the finish"
            _add(whole, item)
        elif isinstance(item, Finish):
            assert whole.finish is None, "finished twice"
            whole.finish = item.reason
        else:
            assert isinstance(item, Report)
            whole.usage = item.usage or whole.usage
            whole.model = item.model or whole.model
    return whole


def _add(whole: Assembled, delta: Delta) -> None:
    whole.logprobs.extend(entry.token for entry in delta.logprobs)
    if delta.part_index == len(whole.parts):
        if delta.kind is DeltaKind.TOOL_CALL:
            assert delta.tool_call_id, "the first delta of a tool call has its id"
            assert delta.tool_name, "and its name"
        whole.parts.append((delta.kind, delta.text, delta.tool_call_id, delta.tool_name))
        return
    kind, text, call_id, name = whole.parts[delta.part_index]
    assert kind is delta.kind, "a part changed its kind"
    assert (delta.tool_call_id, delta.tool_name) == ("", ""), "id and name come once"
    whole.parts[delta.part_index] = (kind, text + delta.text, call_id, name)


async def collect(reads: AsyncIterator[Sequence[StreamItem]]) -> Assembled:
    """Read a stream to its end and put it together: the first read is awaited, others may be handed over.

    It says to every other one that it wants to be awaited again.
    """
    stream, items, turns = cast("Reads", reads), list(await anext(reads)), itertools.cycle((True, False))

    def take(read: Sequence[StreamItem]) -> bool:
        items.extend(read)
        return next(turns)

    with suppress(StopAsyncIteration):
        while True:
            items += await stream.asend(take)
    return assemble(items)


async def stream(provider: Provider, upstream_call: UpstreamChat | None = None) -> Assembled:
    """Make a call and put its stream together."""
    return await collect(provider.stream(upstream_call or call()))


def encoded(*chunks: object) -> list[bytes]:
    return [json.dumps(chunk).encode() for chunk in chunks]


def read(*chunks: object) -> Assembled:
    """Each chunk is a read of its own."""
    answer = StreamedAnswer()
    items: list[StreamItem] = []
    for event in encoded(*chunks):
        items += answer.take([event])
    answer.end()
    return assemble(items)


def failure(*chunks: object) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(*chunks)
    return caught.value
