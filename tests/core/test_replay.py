"""Answers as bytes, and the shelf in memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.errors import AttemptSummary
from router_server.core.packing import UnreadableError, digest, pack, unpack
from router_server.core.record import replace
from router_server.core.results import ChatResult, EmbedResult, Finished, Started, Trail
from router_server.core.shelf import MemoryShelf
from router_server.core.types import (
    Answer,
    ChatRequest,
    Delta,
    Message,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    Usage,
    Vectors,
)

counts = st.integers(0, 2**63 - 1)
usages = st.builds(Usage, counts, counts, counts, counts, counts, st.none() | counts)
tries = st.builds(AttemptSummary, usage=st.none() | usages)
trails = st.builds(Trail, attempts=st.lists(tries, max_size=2).map(tuple))
parts = st.one_of(*(st.from_type(part) for part in (Text, Reasoning, Refusal, ToolCall)))
messages = st.builds(Message, st.sampled_from(Role), st.lists(parts, max_size=3).map(tuple))
answers = st.builds(Answer, message=messages, usage=st.none() | usages)
events = st.one_of(
    st.builds(ChatResult, answer=answers, usage=usages, trail=trails),
    st.builds(EmbedResult, vectors=st.builds(Vectors, counts), usage=usages, trail=trails),
    st.builds(Started, trail=trails),
    st.builds(Finished, usage=usages, trail=trails),
    st.builds(Delta, part_index=counts),
)


@given(st.lists(events))
def test_what_is_unpacked_is_what_was_packed(some: list[Any]) -> None:
    assert unpack(pack(("question", some))) == ("question", tuple(some))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x81\xa3Foo\x90", b"\x81\xa4Text\x90", b"\x82\xa1a\x90\xa1b\x90"]
)
def test_what_nobody_packed_is_not_read(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        unpack(data)


def test_a_digest_does_not_depend_on_the_order_of_mappings() -> None:
    one = ChatRequest("m", (), labels={"a": "1", "b": "2"})
    other = replace(one, labels={"b": "2", "a": "1"})
    assert digest(one) == digest(other)
    assert digest(one) != digest(replace(one, model="n"))


async def test_the_shelf_in_memory_is_bounded_and_forgets_what_is_over() -> None:
    now = 0.0
    shelf = MemoryShelf(100, lambda: now)
    await shelf.put("a", b"a" * 40, 10.0)
    await shelf.put("b", b"b" * 40, 20.0)
    assert await shelf.get("a") == b"a" * 40
    await shelf.put("c", b"c" * 40, 20.0)
    assert await shelf.get("b") is None, "a was used after it"
    assert (await shelf.get("a"), shelf.size) == (b"a" * 40, 80)
    now = 10.0
    assert (await shelf.get("a"), shelf.size) == (None, 40)
    await shelf.put("c", b"c", 20.0)
    assert shelf.size == 1
    await shelf.put("d", b"d" * 101, 20.0)
    assert (await shelf.get("d"), shelf.size) == (None, 0)
