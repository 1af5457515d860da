import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_server.core.errors import Outcome, UpstreamError
from router_server.providers._sse import EventParser


def parse(*chunks: bytes, limit: int = 1 << 20) -> list[bytes]:
    parser = EventParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.close()


def naive(stream: bytes) -> list[bytes]:
    """The standard's own words, one line at a time over the whole stream; an unfinished event counts."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[bytes] = []
    data: list[bytes] = []
    for line in [*text.split(b"\n"), b""]:
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value[1:] if value.startswith(b" ") else value)
    return events


PIECES = [
    b"data: ", b"data:", b"data", b"{}", b"\n", b"\r", b"\r\n", b"\n\n", b": ping", b"event: x", b"id: 1",
    b" ", b":", b"\xef\xbb\xbf", "é€😀".encode(), b"\x0b\x0c\x1c\x85", b"\x00", b"[DONE]",
]  # fmt: skip


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    stream = b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=40)))
    if draw(st.booleans()):
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    edges = [0, *cuts, len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(cut_streams())
@example([b"data: a\r", b"\ndata: b\r\n\r\n"])
@example([b"data: a\r", b"\n\r", b"\ndata: b\r", b"\n\r", b"\n"])
@example([b"\xef", b"\xbb", b"\xbfdata: a\n\n"])
@example([b"\n", b"\xef\xbb\xbfdata: a\n\n"])
@example([b"data: \xc3", b"\xa9\n\n"])
@example([b"data: a\r", b"", b"\n\n"])
def test_any_cut_gives_what_the_standard_says(chunks: list[bytes]) -> None:
    assert parse(*chunks) == naive(b"".join(chunks))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_ending(end: bytes) -> None:
    stream = b"data: 1" + end + b"data: 2" + end * 2 + b": c" + end + b"data:3" + end * 2
    assert parse(stream) == [b"1\n2", b"3"]


def test_events_come_out_with_the_read_that_completes_them() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b\n\nda") == [b"a", b"b"]
    assert parser.feed(b"ta: c\r\n") == []
    assert parser.feed(b"\r") == [b"c"]
    assert parser.feed(b"\n") == []
    assert parser.close() == []


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r", b"data: [DONE]\n\n"])
def test_the_last_event_needs_no_blank_line(tail: bytes) -> None:
    assert parse(b"data: a\n\n" + tail) == [b"a", b"[DONE]"]


def test_an_empty_data_line_is_an_event_and_other_fields_are_none() -> None:
    assert parse(b"event: ping\nid: 7\nretry: 1\n\ndata\n\ndata:\n\ndatabase: x\n\n") == [b"", b""]


@pytest.mark.parametrize("size", [1, 3, 1000, 65536])
def test_an_event_of_a_megabyte_however_it_is_cut(size: int) -> None:
    payload = b"x" * 1_000_000
    stream = b"data: " + payload + b"\n\n"
    started = time.process_time()
    events = parse(*(stream[i : i + size] for i in range(0, len(stream), size)), limit=8 << 20)
    assert events == [payload]
    # A quadratic parser needs minutes for a million one-byte chunks; a linear one about half a second.
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: "] + [b"x"] * 100,
        [b"data: 1234567890\n"] * 10,
        [b"data\n"] * 30,
        [b": " + b"x" * 100 + b"\n"],
        [b"x" * 100],
    ],
    ids=["whole line", "growing line", "many lines", "empty lines", "comment", "no field"],
)
def test_what_is_too_large_is_malformed(chunks: list[bytes]) -> None:
    with pytest.raises(UpstreamError) as caught:
        parse(*chunks, limit=64)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, "event_too_large")


def test_the_limit_is_of_one_event_not_of_the_stream() -> None:
    assert parse(*[b"data: 1234567890\n\n: comment\n\n"] * 100, limit=32) == [b"1234567890"] * 100
