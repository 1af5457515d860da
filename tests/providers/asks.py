"""Upstream calls in one line, and answers as the tests compare them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from router_server.core.provider import UpstreamChat, UpstreamEmbed
from router_server.core.types import (
    ChatRequest,
    Delta,
    EmbedRequest,
    Finish,
    FinishReason,
    Generation,
    Message,
    Report,
    ResponseFormat,
    Role,
    StreamItem,
    Text,
    Usage,
)


def ask(
    text: str,
    *,
    model: str = "m",
    generation: Generation | None = None,
    system: str = "",
    response_format: ResponseFormat | None = None,
    continuation: str | None = None,
    options: Mapping[str, object] | None = None,
) -> UpstreamChat:
    turns = [Message(Role.SYSTEM, (Text(system),))] if system else []
    request = ChatRequest(
        model="route",
        messages=(*turns, Message(Role.USER, (Text(text),))),
        generation=generation or Generation(),
        response_format=response_format,
    )
    return UpstreamChat(model=model, request=request, continuation=continuation, options=options or {})


def ask_vectors(*texts: str, model: str = "m", dimensions: int | None = None) -> UpstreamEmbed:
    return UpstreamEmbed(model=model, request=EmbedRequest("route", texts, dimensions=dimensions))


async def items_of(stream: AsyncIterator[Sequence[StreamItem]]) -> list[StreamItem]:
    items: list[StreamItem] = []
    await read_into(items, stream)
    return items


async def read_into(items: list[StreamItem], stream: AsyncIterator[Sequence[StreamItem]]) -> None:
    """Read to the end, or to the failure: what came before it is in ``items``."""
    async for batch in stream:
        items.extend(batch)


def text_in(items: Sequence[StreamItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Delta))


def finish_in(items: Sequence[StreamItem]) -> FinishReason:
    (finish,) = (item.reason for item in items if isinstance(item, Finish))
    return finish


def usage_in(items: Sequence[StreamItem]) -> Usage:
    *_, usage = (item.usage for item in items if isinstance(item, Report) and item.usage)
    return usage
