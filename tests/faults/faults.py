"""What an upstream can do wrong, on either wire: each fault is a `Reply` of `tests.upstream`.

A fault that is about streams treats a unary call as badly as it can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.faults.wires import Said, Wire, events
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Request,
    Step,
    Steps,
    chunk,
    event,
    head,
    json_reply,
    sse_reply,
)

RESET: Steps = (End.RESET,)
"""The connection is reset before a byte of the answer."""

SILENCE: Steps = (End.STALL,)
"""The request is taken and never answered."""


def pause(seconds: float) -> asyncio.Event:
    """Return a step that takes this long, from now."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    return over


def either(wire: Wire, stream: Steps, unary: Steps) -> Reply:
    """Answer a stream so, and a unary call so."""
    return lambda request: stream if wire.streams(request) else unary


def whole(wire: Wire, answer: Said) -> Reply:
    """Nothing is wrong."""
    return either(wire, sse_reply(events(wire, answer), done=wire.says_done), json_reply(wire.whole(answer)))


def late(wire: Wire, answer: Said, seconds: float) -> Reply:
    """Headers at once, the first event after ``seconds``."""

    def reply(request: Request) -> Iterator[Step]:
        head_, *rest = sse_reply(events(wire, answer), done=wire.says_done)
        yield from (head_,) if wire.streams(request) else ()
        yield pause(seconds)
        yield from rest if wire.streams(request) else json_reply(wire.whole(answer))

    return reply


def cut(wire: Wire, answer: Said, after: int, end: End = End.RESET) -> Reply:
    """The connection ends after so many events, or in the middle of a unary answer's body."""
    return either(wire, broken_off(events(wire, answer)[:after], end), _half(wire.whole(answer), end))


def broken_off(said: Iterable[Any], end: End = End.RESET) -> Steps:
    """Return a stream that ends so after these events, and a part of another one."""
    return (*SSE_HEAD, *map(event, said), chunk(b'data: {"'), end)


def ended(said: Iterable[Any]) -> Steps:
    """Return a stream that ends properly after these events, as if that were all."""
    return (*SSE_HEAD, *map(event, said), LAST_CHUNK)


def stalled(wire: Wire, answer: Said, after: int, seconds: float) -> Reply:
    """So many events, ``seconds`` of silence, and the rest as if nothing had happened."""

    def reply(_request: Request) -> Iterator[Step]:
        head_, *rest = sse_reply(events(wire, answer), done=wire.says_done)
        yield head_
        yield from rest[:after]
        yield pause(seconds)
        yield from rest[after:]

    return reply


def garbled(wire: Wire, answer: Said, after: int) -> Reply:
    """One event, or the body of a unary answer, is not JSON."""
    said = events(wire, answer)
    stream = sse_reply([*said[:after], '{"choices": [{', *said[after:]], done=wire.says_done)
    text = json.dumps(wire.whole(answer)).encode()[:-3]
    return either(wire, stream, (head(200, {"Content-Length": str(len(text))}) + text,))


def unterminated(wire: Wire, answer: Said, end: End) -> Reply:
    """The connection ends after the finish reason: no ``[DONE]``, no end of the body, perhaps no usage."""
    finish = len(answer.words) + 1
    return either(
        wire,
        (*SSE_HEAD, *map(event, events(wire, answer)[:finish]), end),
        json_reply(wire.whole(answer)),
    )


def filtered(wire: Wire) -> Reply:
    """The content filter refuses the prompt."""
    return lambda request: wire.filtered(streaming=wire.streams(request))


def _half(value: Any, end: End) -> Steps:
    body = json.dumps(value).encode()
    return (head(200, {"Content-Length": str(len(body))}) + body[: len(body) // 2], end)
