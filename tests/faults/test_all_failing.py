"""Several targets fail in one call, each in its own way, before the first token and after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from modelrouter import AsyncClient
from tests.faults.faults import RESET, SILENCE, cut, ended, filtered, garbled, stalled, whole
from tests.faults.stage import (
    OF_FALLBACK,
    OF_PRIMARY,
    OF_SAME,
    SHORT,
    Told,
    complaints_about,
    stage,
    together,
    told,
)
from tests.faults.wires import GEMINI, OPENAI, Said, Wire, events
from tests.upstream import Reply

Fails = Callable[[Wire, Said], Reply]

TARGETS = ("a1", "same1", "b1")
ANSWERS = (OF_PRIMARY, OF_SAME, OF_FALLBACK)


def status(number: int, retry_after: float | None = None) -> Fails:
    return lambda wire, _said: wire.refusal(number, retry_after=retry_after)


def too_long(wire: Wire, _said: Said) -> Reply:
    return wire.too_long()


def refused_content(wire: Wire, _said: Said) -> Reply:
    return filtered(wire)


def cut_short(wire: Wire, said: Said) -> Reply:
    return cut(wire, said, 10)


def bad_chunk(wire: Wire, said: Said) -> Reply:
    return garbled(wire, said, 10)


def garbage(wire: Wire, said: Said) -> Reply:
    return garbled(wire, said, 0)


def unfinished(wire: Wire, said: Said) -> Reply:
    return ended(events(wire, said)[:10])


def stalling(wire: Wire, said: Said) -> Reply:
    return stalled(wire, said, 10, 30.0)


def silent(_wire: Wire, _said: Said) -> Reply:
    return SILENCE


def reset(_wire: Wire, _said: Said) -> Reply:
    return RESET


@dataclass(frozen=True)
class Case:
    """What the three targets do, and what the caller is told; ``attempts`` in words, repeats left out."""

    name: str
    do: tuple[Fails, Fails, Fails]
    outcomes: tuple[str, ...]
    error: str | None = None
    retry_after: float | None = None
    partial: Said | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


BEFORE = [
    Case(
        "three failures",
        (status(503), reset, garbage),
        ("a1 unavailable", "same1 unavailable", "b1 malformed"),
        "AllTargetsFailed",
        1.0,
    ),
    Case(
        "silence and a limit",
        (silent, status(429, 55), status(500)),
        ("a1 timeout", "same1 rate_limited", "b1 unavailable"),
        "AllTargetsFailed",
        1.0,
    ),
    Case(
        "two limits and a window",
        (status(429, 58), status(429, 55), too_long),
        ("a1 rate_limited", "same1 rate_limited", "b1 context_length"),
        "RateLimited",
        55.0,
    ),
    Case(
        "windows, the same size is not asked",
        (too_long, whole, too_long),
        ("a1 context_length", "b1 context_length"),
        "ContextLengthExceeded",
    ),
    Case(
        "a key, a name and a window",
        (status(401), status(404), too_long),
        ("a1 auth", "same1 model_missing", "b1 context_length"),
        "ContextLengthExceeded",
    ),
    Case(
        "keys and a name",
        (status(401), status(404), status(403)),
        ("a1 auth", "same1 model_missing", "b1 auth"),
        "UpstreamMisconfigured",
    ),
    Case(
        "a filter is not evaded",
        (status(503), refused_content, whole),
        ("a1 unavailable", "same1 content_filter"),
        "ContentFiltered",
    ),
    Case(
        "a bad request ends it",
        (reset, status(400), whole),
        ("a1 unavailable", "same1 invalid_request"),
        "InvalidRequest",
    ),
    Case(
        "two of three", (status(500), status(429), whole), ("a1 unavailable", "same1 rate_limited", "b1 ok")
    ),
]

MIDWAY = [
    Case("cut and stalled", (cut_short, stalling, whole), ("a1 unavailable", "same1 timeout", "b1 ok")),
    Case("garbled and cut", (bad_chunk, cut_short, whole), ("a1 malformed", "same1 unavailable", "b1 ok")),
    Case(
        "cut and refused", (cut_short, status(429), whole), ("a1 unavailable", "same1 rate_limited", "b1 ok")
    ),
    Case(
        "all cut",
        (cut_short, cut_short, cut_short),
        ("a1 unavailable", "same1 unavailable", "b1 unavailable"),
        "StreamInterrupted",
        partial=OF_FALLBACK,
    ),
    Case(
        "refused, cut and unfinished",
        (status(503), cut_short, unfinished),
        ("a1 unavailable", "same1 unavailable", "b1 malformed"),
        "StreamInterrupted",
        partial=OF_FALLBACK,
    ),
    Case(
        "cut, and nobody begins",
        (cut_short, status(503), status(401)),
        ("a1 unavailable", "same1 unavailable", "b1 auth"),
        "StreamInterrupted",
        partial=OF_PRIMARY,
    ),
    Case(
        "cut, and the filter refuses",
        (cut_short, refused_content, whole),
        ("a1 unavailable", "same1 content_filter"),
        "ContentFiltered",
        partial=OF_PRIMARY,
    ),
]


async def run(case: Case, wire: Wire, way: str, route: str) -> None:
    async with stage(wire, SHORT) as made, AsyncClient(made.served.target, max_attempts=1) as client:
        made.client = client
        for upstream, do, said in zip(
            (made.primary, made.same, made.fallback), case.do, ANSWERS, strict=True
        ):
            upstream.always(do(wire, said))
        seen = await told(made.call(way, model=route))
        _compare(case, seen)
        assert made.served.idle
        asked = {one.split()[0] for one in case.outcomes}
        for name, upstream in zip(TARGETS, (made.primary, made.same, made.fallback), strict=True):
            chats = [request for request in upstream.requests if request.path != wire.health_path]
            assert bool(chats) is (name in asked)


def _compare(case: Case, seen: Told) -> None:
    assert _without_repeats(seen.attempts) == case.outcomes
    if case.error is None:
        assert seen.answer is not None, seen.error
        assert not complaints_about(seen.answer)
        return
    assert type(seen.error).__name__ == case.error, seen
    assert seen.error is not None
    assert seen.error.retry_after == pytest.approx(case.retry_after, abs=1.0)
    if case.partial is None:
        assert not seen.error.partial
    else:
        assert seen.error.partial, "what was delivered is told"
        assert case.partial.text.startswith(seen.error.partial)


def _without_repeats(attempts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(attempts))


ROUTES = pytest.mark.parametrize("route", ["sized", "spread"])


@ROUTES
@pytest.mark.parametrize("case", BEFORE, ids=str)
async def test_before_the_first_token(case: Case, route: str) -> None:
    ways = ("stream", "unary")
    await together(*(run(case, wire, way, route) for wire in (OPENAI, GEMINI) for way in ways))


@ROUTES
@pytest.mark.parametrize("case", MIDWAY, ids=str)
async def test_after_it(case: Case, route: str) -> None:
    await together(*(run(case, wire, "stream", route) for wire in (OPENAI, GEMINI)))
