"""Prompts that begin alike go to whoever had the beginning, unless that one is too busy or unwell."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_server.core.errors import Outcome
from router_server.core.limiter import Limiter, Limits
from router_server.core.prefixes import BLOCK, PrefixOrder, beginnings_of
from router_server.core.provider import EngineLoad
from router_server.core.target import Target, TargetSettings, Upstream
from router_server.core.types import (
    Blob,
    ChatRequest,
    EmbedRequest,
    Message,
    Operation,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from tests.core.asked import Asked
from tests.core.scripted import ALL, ScriptedProvider

SYSTEM = "You are a careful assistant. " * 100
OTHER = "Answer in verse, and briefly. " * 100


def conversation(*texts: str) -> ChatRequest:
    roles = (Role.SYSTEM, *(Role.USER, Role.ASSISTANT) * len(texts))
    turns = zip(roles, texts, strict=False)
    return ChatRequest("r", tuple(Message(role, (Text(text),)) for role, text in turns))


def endpoints(count: int = 3) -> list[Target]:
    settings = TargetSettings("t", "m", ALL)
    upstreams = [
        Upstream("p", "scripted", ScriptedProvider(), Limiter(Limits(), lambda: 0.0), f"e{i}", check=None)
        for i in range(count)
    ]
    return [Target(settings, upstream, lambda: 0.0) for upstream in upstreams]


def busy(endpoint: Target, running: int, *, crowded: bool = False) -> None:
    endpoint.upstream.load.told(EngineLoad(running, 0, 0.0, crowded=crowded), 0)


def first(order: PrefixOrder, targets: Sequence[Target], request: ChatRequest | EmbedRequest) -> int:
    asked = order(targets, Asked(Operation.CHAT, 10, request))
    assert sorted(asked, key=lambda one: one.name) == list(targets), "nobody is lost"
    return list(targets).index(asked[0])


def test_who_had_the_beginning_is_asked_although_others_are_less_busy() -> None:
    order, targets = PrefixOrder(), endpoints()
    busy(targets[0], 1)
    assert first(order, targets, conversation(SYSTEM, "one")) == 1
    busy(targets[1], 4)
    assert first(order, targets, conversation(SYSTEM, "two")) == 1
    assert first(order, targets, conversation(OTHER, "one")) == 2
    assert first(order, targets, conversation(SYSTEM, "three")) == 1
    assert first(order, targets, conversation("short")) == 2, "by load alone"
    assert first(order, targets, EmbedRequest("r", (SYSTEM,))) == 2


def test_the_longest_beginning_decides() -> None:
    order, targets = PrefixOrder(), endpoints(2)
    busy(targets[1], 1)
    assert first(order, targets, conversation(SYSTEM, "u" * 5_000)) == 0
    busy(targets[0], 9)
    assert first(order, targets, conversation(SYSTEM, "v" * 5_000)) == 1, (
        "its beginning is elsewhere, but too busy"
    )
    busy(targets[0], 1)
    assert first(order, targets, conversation(SYSTEM, "v" * 5_000, "w" * 3_000)) == 1
    assert first(order, targets, conversation(SYSTEM, "u" * 5_000, "w" * 3_000)) == 0


@pytest.mark.parametrize(
    ("running", "fits"), [((0, 4), True), ((0, 5), False), ((10, 19), True), ((10, 20), False)]
)
def test_load_is_the_limit_of_affinity(running: tuple[int, int], *, fits: bool) -> None:
    order, targets = PrefixOrder(), endpoints(2)
    busy(targets[0], 1)
    assert first(order, targets, conversation(SYSTEM)) == 1
    for target, count in zip(targets, running, strict=True):
        busy(target, count)
    assert (first(order, targets, conversation(SYSTEM)) == 1) is fits


def test_who_is_crowded_full_or_unwell_gives_way_and_whoever_stood_in_has_it_too() -> None:
    order, targets = PrefixOrder(), endpoints(2)
    busy(targets[0], 1)
    assert first(order, targets, conversation(SYSTEM)) == 1
    busy(targets[1], 0, crowded=True)
    assert first(order, targets, conversation(SYSTEM)) == 0
    busy(targets[1], 0)
    assert first(order, targets, conversation(SYSTEM)) == 1, "of two who have it the less busy"
    targets[1].cooldown.bench(Outcome.MODEL_MISSING)
    assert first(order, targets, conversation(SYSTEM)) == 0
    targets[0].cooldown.bench(Outcome.MODEL_MISSING)
    first(order, targets, conversation(SYSTEM))


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    order, targets = PrefixOrder(most=10), endpoints(2)
    busy(targets[0], 1)
    assert first(order, targets, conversation(SYSTEM)) == 1
    busy(targets[1], 2)
    for i in range(20):
        first(order, targets, conversation(f"{i}" * 2_000))
        assert len(order) <= 10
    assert first(order, targets, conversation(SYSTEM)) == 0


@settings(deadline=None)
@given(st.text(min_size=0, max_size=50), st.text(max_size=50), st.integers(0, 5), st.integers(0, 3))
def test_beginnings_are_alike_exactly_as_far_as_the_prompts_are(
    a: str, b: str, shared: int, more: int
) -> None:
    base = "".join(chr(97 + i % 26) for i in range(shared * BLOCK))
    one = beginnings_of(conversation(base + "A" + a + "x" * (more * BLOCK)))
    two = beginnings_of(conversation(base + "B" + b + "x" * (more * BLOCK)))
    alike = sum(1 for left, right in zip(one, two, strict=False) if left == right)
    assert list(one[:alike]) == list(two[:alike])
    assert alike == (shared * BLOCK + len("\0system\0")) // BLOCK


def test_tools_and_attachments_are_part_of_the_beginning_and_length_is_bounded() -> None:
    text = "x" * 2_000
    plain = conversation(text)
    tools = ChatRequest("r", plain.messages, tools=(Tool("t"),))
    assert beginnings_of(plain)[0] != beginnings_of(tools)[0]

    def with_image(data: bytes) -> ChatRequest:
        return ChatRequest("r", (Message(Role.USER, (Blob("image/png", data), Text(text))),))

    assert beginnings_of(with_image(b"1")) == beginnings_of(with_image(b"1"))
    assert beginnings_of(with_image(b"1"))[0] != beginnings_of(with_image(b"2"))[0]
    used = Message(Role.TOOL, (ToolCall("1", "t", "{}"), ToolResult("1", (Text(text),))))
    assert len(beginnings_of(ChatRequest("r", (used,)))) == 1
    assert len(beginnings_of(conversation("x" * 10_000_000))) == 256
