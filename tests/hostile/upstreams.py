"""What a hostile upstream answers: replies for `tests.upstream`, each with the class that it must be given.

Whatever the API, the wire is the same, so most replies serve every kind of provider. Those that need the
API's own shape are made from a `Shape`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.upstream import LAST_CHUNK, SSE_HEAD, End, Reply, Request, Step, chunk, head, reply

MIB = 1024 * 1024
_BLOCK = 64 * 1024
_NO_LENGTH = head(headers={"Connection": "close"})
_SSE_UNTIL_CLOSE = head(headers={"Connection": "close"}, content_type="text/event-stream")


@dataclass(frozen=True)
class Hostility:
    """One way to be hostile.

    Attributes:
        name: of the test's case.
        reply: what the upstream says to every request.
        outcomes: the classes that fit; where TIMEOUT is among them, the upstream is asked with short timers.
        memory: MiB by which the server may grow while it hears this.
    """

    name: str
    reply: Reply
    outcomes: frozenset[str] = frozenset({"MALFORMED"})
    memory: int = 32

    @property
    def needs_a_timer(self) -> bool:
        """Whether nothing but a timer may end it."""
        return "TIMEOUT" in self.outcomes


_NOT_SAID = frozenset({"MALFORMED", "UNAVAILABLE"})
_IN_TIME = frozenset({"TIMEOUT"})


def endless(*first: Step, then: bytes) -> Reply:
    """Return a reply that says ``then`` for ever."""

    def steps(_request: Request) -> Iterator[Step]:
        yield from first
        while True:
            yield then

    return steps


def gzipped_zeros(mebibytes: int) -> bytes:
    """Return some kilobytes that decompress to so many MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(MIB)
    return b"".join(packer.compress(block) for _ in range(mebibytes)) + packer.flush()


def _padded(name: bytes) -> bytes:
    return name + b": " + b"x" * 4_000 + b"\r\n"


def heads() -> Iterator[Hostility]:
    """Yield what is wrong before the body."""
    status_line = b"HTTP/1.1 200 OK\r\n"
    yield Hostility("endless headers", endless(status_line, then=_padded(b"X-More") * 16), _NOT_SAID)
    yield Hostility("one endless header", endless(status_line + b"X-More: ", then=b"x" * _BLOCK), _NOT_SAID)
    yield Hostility("endless status line", endless(b"HTTP/1.1 200 ", then=b"x" * _BLOCK), _NOT_SAID)
    yield Hostility(
        "endless 100 Continue", endless(then=b"HTTP/1.1 100 Continue\r\n\r\n" * 64), _IN_TIME, memory=384
    )
    yield Hostility("not HTTP", (b"SSH-2.0-OpenSSH_9.6\r\n" * 10, End.CLOSE), _NOT_SAID)
    yield Hostility("switching protocols", (head(101), End.STALL), _NOT_SAID | _IN_TIME)
    two_lengths = head(headers={"Content-Length": "5", "content-length": "6"})
    yield Hostility("two lengths", (two_lengths + b"[1,2,3]", End.CLOSE), _NOT_SAID)
    yield Hostility(
        "a negative length", (head(headers={"Content-Length": "-5"}) + b"{}", End.CLOSE), _NOT_SAID
    )
    yield Hostility(
        "a status of four digits", (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", End.CLOSE), _NOT_SAID
    )


def bodies() -> Iterator[Hostility]:
    """Yield bodies without end, without truth or without sense."""
    yield Hostility("endless body", endless(_NO_LENGTH, then=b" " * _BLOCK), memory=256)
    yield Hostility(
        "endless chunk extension", endless(*SSE_HEAD, b"1;", then=b"x" * _BLOCK), _NOT_SAID | _IN_TIME
    )
    yield Hostility("endless error body", endless(head(500), then=b"x" * _BLOCK), frozenset({"UNAVAILABLE"}))
    packed = gzipped_zeros(512)
    bomb = head(headers={"Content-Encoding": "gzip", "Content-Length": str(len(packed))}) + packed
    yield Hostility("a decompression bomb", (bomb, End.STALL), memory=256)
    nested = gzip.compress(packed)
    double = {"Content-Encoding": "gzip, gzip", "Content-Length": str(len(nested))}
    yield Hostility("a bomb in a bomb", (head(headers=double) + nested,), memory=256)
    stream = {"Content-Encoding": "gzip", "Connection": "close"}
    yield Hostility(
        "a bomb as a stream",
        (head(headers=stream, content_type="text/event-stream") + packed, End.CLOSE),
        memory=256,
    )
    yield Hostility(
        "no gzip at all",
        (head(headers={"Content-Encoding": "gzip", "Content-Length": "4"}) + b"abcd", End.CLOSE),
    )
    yield Hostility(
        "less than its length", (head(headers={"Content-Length": "1000"}) + b"{", End.CLOSE), _NOT_SAID
    )
    yield Hostility(
        "more than its length", (head(headers={"Content-Length": "5"}) + b'{"choices": []}', End.STALL)
    )
    yield Hostility(
        "a web page", reply(b"<!doctype html><title>Log in</title>", 200, {"Content-Type": "text/html"})
    )
    yield Hostility("nothing", reply(b""))


def nested() -> Iterator[Hostility]:
    """Yield JSON that is too deep for any stack, and what is no text."""
    yield Hostility("no UTF-8", reply(b'{"model": "\xff\xfe"}'))
    for deep in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
        yield Hostility("nested 100,000 deep", reply(b'{"x": ' + deep + b"}"))
    yield Hostility(
        "an error nested 100,000 deep", reply(b'{"error": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    )
    yield Hostility("a failure nested 100,000 deep", reply(b"[" * 100_000, 503), frozenset({"UNAVAILABLE"}))
    yield Hostility(
        "a failure in no UTF-8", reply(b'{"error": {"message": "\xff"}}', 503), frozenset({"UNAVAILABLE"})
    )


def streams() -> Iterator[Hostility]:
    """Yield event streams without end or sense; asked for as a whole answer, they are no JSON."""
    yield Hostility(
        "one endless event", endless(_SSE_UNTIL_CLOSE + b"data: ", then=b"x" * _BLOCK), memory=256
    )
    yield Hostility(
        "one event of endless lines", endless(_SSE_UNTIL_CLOSE, then=b"data: x\n" * 8_192), memory=256
    )
    yield Hostility("an endless comment", endless(_SSE_UNTIL_CLOSE + b": ", then=b"x" * _BLOCK), memory=256)
    yield Hostility(
        "endless comments",
        endless(_SSE_UNTIL_CLOSE, then=b": alive\n\n" * 4_096),
        frozenset({"TIMEOUT", "MALFORMED"}),
        256,
    )
    yield Hostility(
        "a web page as events", (*SSE_HEAD, chunk(b"<!doctype html><title>Log in</title>"), LAST_CHUNK)
    )


@dataclass(frozen=True)
class Shape:
    """How an API says things: ``whole`` and ``event`` wrap the parts of an answer.

    Attributes:
        answer: an answer's JSON, from its text, its usage's input tokens and the word for its end.
        streamed: the same as what one event of a stream says.
    """

    answer: Callable[[Any, Any, Any], dict[str, Any]]
    streamed: Callable[[Any, Any, Any], dict[str, Any]]


def _openai(part: str) -> Callable[[Any, Any, Any], dict[str, Any]]:
    return lambda text, tokens, end: {
        "choices": [{"index": 0, part: {"content": text}, "finish_reason": end}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 1},
    }


def _gemini(text: Any, tokens: Any, end: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": end}],
        "usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": 1},
    }


OPENAI = Shape(_openai("message"), _openai("delta"))
GEMINI = Shape(_gemini, _gemini)


def answers(shape: Shape) -> Iterator[Hostility]:
    """Yield answers of the API's shape but for one value."""
    wrong: Iterable[tuple[str, tuple[Any, Any, Any]]] = (
        ("a number for a text", (7, 1, "stop")),
        ("a list for a text", (["a"], 1, "stop")),
        ("a number for the end", ("a", 1, 7)),
        ("negative usage", ("a", -1, "stop")),
        ("a usage of 80 digits", ("a", 10**80, "stop")),
        ("a usage of 63 bits", ("a", 2**63, "stop")),
        ("a usage of words", ("a", "many", "stop")),
        ("a usage of fractions", ("a", 0.5, "stop")),
    )
    for name, values in wrong:
        whole, event = shape.answer(*values), shape.streamed(*values)
        yield Hostility(name, _either(json.dumps(whole).encode(), json.dumps(event).encode()))
    huge = json.dumps(shape.answer("a", 0, "stop")).encode().replace(b"0", b"9" * 10_000, 1)
    yield Hostility("a number of 10,000 digits", _either(huge, huge))
    surrogate = json.dumps(shape.answer("\ud800", 1, "stop")).encode()
    yield Hostility("half a character", _either(surrogate, surrogate))


def _either(whole: bytes, event: bytes) -> Reply:
    stream = (*SSE_HEAD, chunk(b"data: " + event + b"\n\n"), LAST_CHUNK)
    return lambda request: stream if _wants_stream(request) else reply(whole)


def _wants_stream(request: Request) -> bool:
    return "stream" in request.target.lower() or b'"stream":true' in request.body.replace(b" ", b"")
