"""The properties of `tests.fuzz.properties`, for what Hypothesis makes of the seeds."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import properties
from tests.fuzz.seeds import SEEDS

few = settings(max_examples=150, deadline=None)


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """Return a seed, or some of them, with bytes cut out, put in and replaced."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS[name]), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6) | st.sampled_from(_PIECES))
    return bytes(data)


_PIECES = (
    b"null", b"-1", b"1e999", b"9" * 400, b'"\\ud800"', b"[" * 3_000, b"{}", b"NaN", b"\n\n", b"\r", b"${",
)  # fmt: skip


@few
@given(damaged("sse") | st.binary(max_size=200))
@example(b"\x00data: a\r\n\ndata: b")
@example(b"\x04\rdata\nx\n\n")
def test_events_do_not_depend_on_the_cut(data: bytes) -> None:
    properties.sse(data)


@few
@given(damaged("streams"))
def test_streams_are_told_or_refused(data: bytes) -> None:
    properties.streams(data)


@few
@given(damaged("answers"))
def test_answers_are_read_or_refused(data: bytes) -> None:
    properties.answers(data)


@settings(few, max_examples=50)
@given(damaged("config"))
def test_configurations_are_taken_or_their_mistakes_told(data: bytes) -> None:
    properties.config(data)


@pytest.mark.parametrize("name", SEEDS)
def test_every_property_has_seeds(name: str) -> None:
    for seed in SEEDS[name]:
        properties.PROPERTIES[name](seed)
    assert SEEDS.keys() == properties.PROPERTIES.keys()
