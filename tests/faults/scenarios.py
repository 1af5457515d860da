"""The sixteen faults of the promise, row by row: what the primary does, and what must come of it.

One list for two sets of timers: the tests run it with short ones, the table with the true ones. The rows
are those of `docs/faults.md`; row 15 is in `flapping`, and row 16 is part of every other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.faults import (
    RESET,
    SILENCE,
    cut,
    filtered,
    garbled,
    late,
    stalled,
    unterminated,
    whole,
)
from tests.faults.stage import OF_FALLBACK, OF_PRIMARY, Stage, Timers
from tests.faults.wires import VLLM, Wire
from tests.upstream import End, Reply, Request, json_reply

_OWN = 2.0
"""Seconds that a call itself may take, beside the waits that the row is about: a busy machine's."""


@dataclass(frozen=True)
class Scenario:
    """One fault.

    Attributes:
        row: its number in the table.
        fault: what the primary does.
        replies: to the first requests of the primary, one each.
        goes_on: to all further ones.
        attempts: every try in order, and how it ended.
        answers: who answers; None: nobody does, the call fails with ``error``.
        ways: ``stream``, ``unary``, or both.
        unary_attempts: where they differ from those of a stream.
        waits: the seconds that must pass until there is an answer.
        rests: the primary is left alone for a while afterwards, though it is well again.
        options: of the call.
        fallback_wire: the fallback's kind of provider, where it is not the primary's.
        fallback: what the fallback says, where that is not its whole answer.
        estimated: the upstream did not say what it took.
    """

    row: int
    fault: str
    attempts: tuple[str, ...]
    replies: Callable[[Wire, Timers], tuple[Reply, ...]] = lambda _wire, _timers: ()
    goes_on: Callable[[Wire, Timers], Reply] = lambda wire, _timers: whole(wire, OF_PRIMARY)
    answers: str | None = "b1"
    error: str = ""
    ways: tuple[str, ...] = ("stream", "unary")
    unary_attempts: tuple[str, ...] | None = None
    waits: Callable[[Timers, str], float] = lambda _timers, _way: 0.0
    rests: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    fallback_wire: Wire | None = None
    fallback: Callable[[Wire], Reply] = lambda wire: whole(wire, OF_FALLBACK)
    estimated: Callable[[Wire], bool] = lambda _wire: False
    after: Callable[[Stage], list[str]] = lambda _stage: []

    def __str__(self) -> str:
        return f"{self.row}-{self.fault}".replace(" ", "-").replace(",", "")

    def expected(self, way: str) -> tuple[str, ...]:
        """Return the attempts."""
        return self.unary_attempts if way == "unary" and self.unary_attempts else self.attempts

    def within(self, timers: Timers, way: str) -> tuple[float, float]:
        """Return the seconds that the call takes, at least and at most."""
        waits = self.waits(timers, way)
        return 0.95 * waits, waits + _OWN


def _silent(timers: Timers, way: str) -> float:
    # A unary call gets half of the deadline while another target could follow.
    return timers.upstream.first_token if way == "stream" else timers.upstream.unary / 2


def _limited(wire: Wire, timers: Timers) -> tuple[Reply, ...]:
    return (wire.refusal(429, retry_after=2 * timers.scale),)


def _nothing_sent(stage: Stage, *names: str) -> list[str]:
    asked = {name: len(_chats(getattr(stage, name).requests, stage.wire)) for name in names}
    return [f"{name} was asked {count} times" for name, count in asked.items() if count]


def _chats(requests: list[Request], wire: Wire) -> list[Request]:
    return [request for request in requests if request.path != wire.health_path]


def _prefill_refused(wire: Wire) -> Reply:
    def reply(request: Request) -> Any:
        if request.json.get("continue_final_message"):
            return json_reply(
                {"error": {"message": "no prefill", "type": "BadRequestError", "code": 400}}, 400
            )
        answer = whole(wire, OF_FALLBACK)
        return answer(request) if callable(answer) else answer

    return reply


_TWICE_UNAVAILABLE = ("a1 unavailable", "a1 unavailable", "b1 ok")

SCENARIOS = (
    Scenario(
        1,
        "429 with Retry-After 2 s, then fine",
        ("a1 rate_limited", "b1 ok"),
        replies=_limited,
        rests=True,
    ),
    Scenario(
        1,
        "the same, nobody else",
        ("a1 rate_limited", "a1 ok"),
        replies=_limited,
        answers="a1",
        waits=lambda timers, _way: 2 * timers.scale,
        options={"model": "alone"},
    ),
    Scenario(
        2,
        "429 for ever",
        ("a1 rate_limited", "b1 ok"),
        goes_on=lambda wire, _timers: wire.refusal(429),
        rests=True,
    ),
    Scenario(
        3,
        "500 once",
        ("a1 unavailable", "a1 ok"),
        replies=lambda wire, _timers: (wire.refusal(500),),
        answers="a1",
    ),
    Scenario(4, "503 for ever", _TWICE_UNAVAILABLE, goes_on=lambda wire, _timers: wire.refusal(503)),
    Scenario(5, "TCP reset before headers", _TWICE_UNAVAILABLE, goes_on=lambda _wire, _timers: RESET),
    Scenario(
        6,
        "accepts, never answers",
        ("a1 timeout", "b1 ok"),
        goes_on=lambda _wire, _timers: SILENCE,
        waits=_silent,
    ),
    Scenario(
        7,
        "first token after 20 s",
        ("a1 timeout", "b1 ok"),
        goes_on=lambda wire, timers: late(wire, OF_PRIMARY, 20 * timers.scale),
        ways=("stream",),
        waits=_silent,
    ),
    Scenario(
        8,
        "stream cut after 40 of 60 tokens",
        ("a1 unavailable", "b1 ok"),
        goes_on=lambda wire, _timers: cut(wire, OF_PRIMARY, 40),
        unary_attempts=_TWICE_UNAVAILABLE,
    ),
    Scenario(
        9,
        "stream stalls 30 s after 20 tokens",
        ("a1 timeout", "b1 ok"),
        goes_on=lambda wire, timers: stalled(wire, OF_PRIMARY, 20, 30 * timers.scale),
        ways=("stream",),
        waits=lambda timers, _way: timers.upstream.idle,
    ),
    Scenario(
        10,
        "one chunk is not JSON",
        ("a1 malformed", "b1 ok"),
        goes_on=lambda wire, _timers: garbled(wire, OF_PRIMARY, 30),
    ),
    Scenario(
        11,
        "no [DONE], closed after the finish reason",
        ("a1 ok",),
        goes_on=lambda wire, _timers: unterminated(wire, OF_PRIMARY, End.CLOSE),
        answers="a1",
        ways=("stream",),
        estimated=lambda wire: wire.says_done,
    ),
    Scenario(
        11,
        "the same, reset",
        ("a1 ok",),
        goes_on=lambda wire, _timers: unterminated(wire, OF_PRIMARY, End.RESET),
        answers="a1",
        ways=("stream",),
        estimated=lambda wire: wire.says_done,
    ),
    Scenario(
        12,
        "400 context length",
        ("a1 context_length", "b1 ok"),
        goes_on=lambda wire, _timers: wire.too_long(),
        options={"model": "sized"},
        after=lambda stage: _nothing_sent(stage, "same"),
    ),
    Scenario(
        13,
        "400 content filter",
        ("a1 content_filter",),
        goes_on=lambda wire, _timers: filtered(wire),
        answers=None,
        error="ContentFiltered",
        options={"model": "sized"},
        after=lambda stage: _nothing_sent(stage, "same", "fallback"),
    ),
    Scenario(
        14,
        "cut, and the fallback rejects assistant prefill",
        ("a1 unavailable", "b1 invalid_request", "b1 ok"),
        goes_on=lambda wire, _timers: cut(wire, OF_PRIMARY, 40),
        ways=("stream",),
        options={"stream_recovery": "resume"},
        fallback_wire=VLLM,
        fallback=_prefill_refused,
    ),
)
