"""What must hold for any bytes: each function takes some, and raises where it does not.

Nothing here knows who makes the bytes up: Hypothesis in `make test`, atheris for longer in `make soak`.
"""

from __future__ import annotations

import contextlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from router_server.config import ConfigError, read
from router_server.core.errors import UpstreamError
from router_server.core.intake import Intake
from router_server.core.results import Trail
from router_server.core.stream import StreamMachine
from router_server.core.types import StreamItem, Usage
from router_server.providers import _gemini_stream, _openai_wire_stream
from router_server.providers._gemini_answer import read_answer as read_gemini
from router_server.providers._gemini_embed import read_embeddings as read_gemini_embeddings
from router_server.providers._gemini_errors import read_error as read_gemini_error
from router_server.providers._openai_wire_answer import read_answer as read_openai
from router_server.providers._openai_wire_embed import read_embeddings as read_openai_embeddings
from router_server.providers._openai_wire_errors import read_error as read_openai_error
from router_server.providers._sse import EventParser
from router_server.rpc.convert.answers import write_event

_LARGEST: Final = 64
"""Bytes of an event: small, so that the limit is met."""


class _Answer(Protocol):
    def take(self, events: list[bytes]) -> list[StreamItem]: ...


def sse(data: bytes) -> None:
    """However a stream is cut, it has the same events, or is refused; the first byte says where to cut."""
    size = data[0] % 16 + 1 if data else 1
    stream = data[1:]
    while stream.startswith(BOM_UTF8):  # it counts against the limit where it comes in pieces
        stream = stream.removeprefix(BOM_UTF8)
    cut = [stream[at : at + size] for at in range(0, len(stream), size)]
    whole = _events([stream])
    assert _events(cut) == whole
    assert all(b"\n" not in event or len(event) <= _LARGEST for event in whole or ())


def streams(data: bytes) -> None:
    """A stream of either API becomes events of the contract, or is refused."""
    for answer in (_openai_wire_stream.StreamedAnswer(), _gemini_stream.StreamedAnswer("model", 60.0)):
        with contextlib.suppress(UpstreamError):
            _told(answer, data)


def answers(data: bytes) -> None:
    """A whole answer of either API is read, or refused; an error body is read, whatever it is."""
    readers: Sequence[Callable[[], object]] = (
        lambda: read_openai(data),
        lambda: read_gemini(data, "model", 60.0),
        lambda: read_openai_embeddings(data, 1, None),
        lambda: read_gemini_embeddings(data, 1, 60.0),
    )
    for read_one in readers:
        with contextlib.suppress(UpstreamError):
            read_one()
    for status in (400, 429, 503):
        read_openai_error(status, data)
        read_gemini_error(status, data)


def config(data: bytes) -> None:
    """A configuration is taken, or every mistake is told."""
    told = _mistakes(data.decode("utf-8", "replace"))
    assert told is None or ("fuzz" in told and "sk-of-the-environment" not in told)


PROPERTIES: Final[Mapping[str, Callable[[bytes], None]]] = {
    "sse": sse,
    "streams": streams,
    "answers": answers,
    "config": config,
}


def _mistakes(text: str) -> str | None:
    try:
        read(text, {"KEY": "sk-of-the-environment"}, origin="fuzz")
    except ConfigError as error:
        return str(error)
    return None


def _events(chunks: Iterable[bytes]) -> list[bytes] | None:
    parser = EventParser(_LARGEST)
    try:
        return [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()
    except UpstreamError:
        return None


def _told(answer: _Answer, data: bytes) -> None:
    intake = Intake(keep_deltas=True)
    machine = StreamMachine("call", "route")
    trail = partial(Trail, "route", "target", "provider", "model")
    machine.begin(resumed=False, reason="")
    for events in _reads(EventParser(), data):
        for event in machine.take(intake.take(answer.take(events)), trail):
            write_event(event).SerializeToString()
    for event in machine.end(intake.check_finished(), intake.usage or Usage(), trail):
        write_event(event).SerializeToString()


def _reads(parser: EventParser, data: bytes) -> Iterator[list[bytes]]:
    yield parser.feed(data)
    yield parser.close()
