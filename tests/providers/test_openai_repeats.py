"""Chunks that repeat each other: read together they say what each of them says by itself."""

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_server.core.errors import UpstreamError
from router_server.core.record import replace
from router_server.core.types import Delta
from router_server.providers._openai_wire_repeats import Repeats
from router_server.providers._openai_wire_stream import StreamedAnswer, _text_of

Write = Callable[[object], str]


def compact(chunk: object) -> str:
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))


def spaced(chunk: object) -> str:
    return json.dumps(chunk)


def event(text: str, write: Write = compact, *, finish: bool = False, **more: object) -> bytes:
    reason = "stop" if finish else None
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
    chunk = {"id": "c-1", "model": "m-1", "choices": [choice], "usage": None, **more}
    return write(chunk).encode("utf-8", "surrogatepass")


def raw(text: bytes) -> bytes:
    """Return a chunk with this between the quotes, whatever it is."""
    before, _, after = event("HERE").partition(b"HERE")
    return before + text + after


def said(*events: bytes) -> str | None:
    """Return the text of ``events`` that come in one read, None where they are malformed."""
    try:
        items = StreamedAnswer().take([*events])
    except UpstreamError:
        return None
    return "".join(item.text for item in items if isinstance(item, Delta))


def each_said(*events: bytes) -> str | None:
    texts = [said(event) for event in events]
    return None if None in texts else "".join(filter(None, texts))


WORDS = st.text() | st.sampled_from(["content", "index", "m-1", "", " word", '"', "\\", "\n", "😀", "null"])
BROKEN = st.sampled_from(
    [
        b"a\\",
        b'a","b',
        b'"',
        b"\xff",
        b"\xc3",
        b"\xa9",
        b"\n",
        b"\\ud83d",
        b"\\ude00",
        b"\\x",
        b'a\\","b',
        b"\0",
    ]
)


@given(
    st.lists(
        st.one_of(
            st.builds(event, WORDS, st.sampled_from([compact, spaced])),
            st.builds(event, WORDS, created=st.integers(0, 3)),
            BROKEN.map(raw),
        ),
        max_size=12,
    )
)
@example([event(" a"), raw(b"a\\"), raw(b',"b')])
@example([event(" a"), raw(b"\\ud83d"), raw(b"\\ude00")])
@example([event(" a"), raw(b"\xc3"), raw(b"\xa9")])
def test_together_they_say_what_each_says(events: list[bytes]) -> None:
    assert said(*events) == each_said(*events)


def framed(*events: bytes) -> bytes:
    return b"".join(b"data: %s\n\n" % event for event in events)


@given(
    st.one_of(
        WORDS.map(event),
        WORDS.map(lambda text: event(text, spaced)),
        BROKEN.map(raw),
        st.binary().map(raw),
    )
)
def test_alone_it_says_what_it_says_among_others(one: bytes) -> None:
    answer = StreamedAnswer()
    answer.take([event(" a")])
    alone = answer.take_alone(framed(one))
    assert alone is None or alone.text == said(one)


def test_what_comes_alone_is_taken_alone() -> None:
    answer = StreamedAnswer()
    assert answer.take_alone(framed(event(" a"))) is None, "nothing was learnt"
    first = answer.take([event(" a")])
    for text in (" b", '"', "\n", "😀"):
        assert answer.take_alone(framed(event(text))) == replace(first[0], text=text)
    for other in (
        framed(event(" c"), event(" d")),
        framed(event("")),
        framed(event(" c"))[:-1],
        framed(event(" c"))[1:],
        event(" c"),
        b"",
    ):
        assert answer.take_alone(other) is None
    answer.take([event("", finish=True)])
    assert answer.take_alone(framed(event(" e"))) is None, "after the finish"


def test_what_repeats_is_not_decoded() -> None:
    decoded: list[bytes] = []

    def decode(event: bytes) -> str | None:
        decoded.append(event)
        return _text_of(event)

    repeats = Repeats(decode)
    repeats.learn(event(" one"), " one")
    assert len(decoded) == 1
    assert repeats.read([event("skipped"), event(" two"), event("\n"), event("three", spaced)], 1) == [
        " two",
        "\n",
    ]
    assert len(decoded) == 1


@pytest.mark.parametrize("text", ["content", "m-1", "id", "c-1"])
def test_a_text_that_stands_elsewhere_too_teaches_nothing(text: str) -> None:
    repeats = Repeats(_text_of)
    repeats.learn(event(text), text)
    assert repeats.read([event(text)], 0) == []


def test_a_stream_whose_chunks_all_differ_is_given_up_and_one_that_changes_now_and_then_is_not() -> None:
    asked = 0

    def decode(event: bytes) -> str | None:
        nonlocal asked
        asked += 1
        return _text_of(event)

    repeats = Repeats(decode)
    for number in range(10):
        chunk = event(" a", created=number)
        assert repeats.read([chunk], 0) == []
        repeats.learn(chunk, " a")
    assert asked == 3

    repeats = Repeats(decode)
    for number in range(10):
        chunk = event(" a", created=number)
        repeats.learn(chunk, " a")
        assert repeats.read([chunk], 0) == [" a"]

    repeats = Repeats(decode)
    for number in range(10):
        chunk = event(" a", created=number)
        repeats.learn(chunk, " a")
        assert repeats.read_alone(framed(chunk)) == " a"


def test_a_chunk_that_is_shorter_than_what_stands_before_and_after_does_not_fit() -> None:
    repeats = Repeats(_text_of)
    repeats.learn(event(" a"), " a")
    before, _, after = event("HERE").partition(b"HERE")
    assert repeats.read([before + after[1:]], 0) == []
    assert not repeats.read_alone(framed(before + after[1:]))
    assert not repeats.read_alone(framed(before + after[2:]))
