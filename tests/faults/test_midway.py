"""A stream breaks after each of its events, in every way, whatever it is made of: the answer is whole.

It is that of one target where it starts over; where it may be continued, each target gave its exact part.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelrouter import Answer
from tests.faults.faults import broken_off, ended
from tests.faults.kinds import KINDS, Kind, Whole
from tests.faults.stage import TRUE, Stage, Told, stage, together, told
from tests.faults.wires import GEMINI, OPENAI, VLLM, Wire, said
from tests.upstream import SSE_HEAD, End, Reply, Request, Steps, event, json_reply, sse_reply

NEVER_OPENS = ", breaker: {failure_threshold: 100000, min_calls: 100000}"
IMPATIENT = ", timeouts: {first_token: 5s, idle: 1s}"

Break = Callable[[list[Any]], Steps]


def _error(wire: Wire) -> Any:
    code: Any = 503 if wire is GEMINI else "server_error"
    return {"error": {"message": "no", "code": code}}


def breaks_of(wire: Wire) -> dict[str, Break]:
    """Return the ways in which a stream breaks after some events, by the outcome that each is."""
    return {
        "reset unavailable": broken_off,
        "closed unavailable": lambda some: broken_off(some, End.CLOSE),
        "ended malformed": ended,
        "garbled malformed": lambda some: (*ended([*some, "{"])[:-1], End.STALL),
        "error unavailable": lambda some: ended([*some, _error(wire)]),
    }


@asynccontextmanager
async def scripted(wire: Wire, fallback_wire: Wire | None = None) -> AsyncIterator[tuple[Stage, list[Steps]]]:
    """A stage whose primary answers the prompt ``case n`` with the n-th of some scripts."""
    scripts: list[Steps] = []

    def reply(request: Request) -> Steps:
        found = re.search(rb"case (\d+)", request.body)
        assert found is not None
        return scripts[int(found[1])]

    async with stage(wire, TRUE, fallback_wire=fallback_wire, more=NEVER_OPENS + IMPATIENT) as made:
        made.primary.always(reply)
        yield made, scripts


async def results(made: Stage, count: int, options: dict[str, Any]) -> list[Told]:
    """Call once for every script, all at once."""
    calls = [made.client.stream_chat(f"case {n}", **options).result() for n in range(count)]
    return list(await asyncio.gather(*map(told, calls)))


def answer_of(seen: Told) -> Answer:
    assert seen.answer is not None, seen.error
    return seen.answer


@pytest.mark.parametrize("recovery", ["restart", "resume"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("wire", [OPENAI, GEMINI, VLLM], ids=lambda wire: wire.kind)
async def test_broken_after_each_event(wire: Wire, kind: Kind, recovery: str) -> None:
    async with scripted(wire) as (made, scripts):
        said_by_a = kind.events(wire, "primary")
        cases = list(itertools.product(breaks_of(wire).items(), range(len(said_by_a) + 1)))
        scripts += [broken(said_by_a[:after]) for (_name, broken), after in cases]
        made.fallback.always(_answers(wire, kind))
        seen = await results(made, len(scripts), {**kind.options, "stream_recovery": recovery})
        continuable = (wire, kind.name, recovery) == (VLLM, "text", "resume")
        may_be_refused = {"b1 invalid_request"} if continuable else set()
        for ((name, _broken), after), one in zip(cases, seen, strict=True):
            answer = answer_of(one)
            where = f"{name} after {after}"
            assert Whole.of(answer) == kind.owed("fallback"), where
            assert answer.finish_reason == kind.finish, where
            assert one.attempts[-1] == "b1 ok", where
            before = set(one.attempts[:-1])
            assert before - may_be_refused == {f"a1 {name.split()[1]}"}, where
            assert (answer.usage.output_tokens, answer.usage.estimated) == (60, False), where
        assert made.served.idle


def _answers(wire: Wire, kind: Kind) -> Reply:
    """The whole answer; a text that is to be continued is refused, so that the target starts over."""
    steps = sse_reply(kind.stream(wire, "fallback"), done=wire.says_done)
    refused = json_reply({"error": {"message": "no", "code": 400}}, 400)

    def reply(request: Request) -> Steps:
        return refused if request.json.get("continue_final_message") else steps

    return reply


async def test_stalled_after_each_event() -> None:
    """All at once, and on both wires: each takes the idle time."""

    async def stalling(wire: Wire) -> None:
        kind = KINDS[-1]
        async with scripted(wire) as (made, scripts):
            events = kind.events(wire, "primary")
            cuts = range(1, len(events))
            scripts += [(*SSE_HEAD, *map(event, events[:after]), End.STALL) for after in cuts]
            made.fallback.always(_answers(wire, kind))
            for one in await results(made, len(scripts), dict(kind.options)):
                assert Whole.of(answer_of(one)) == kind.owed("fallback")
                assert one.attempts == ("a1 timeout", "b1 ok")
            assert made.served.idle
            stalled = [c for c in made.primary.connections if c.answered < len(c.requests)]
            async with asyncio.timeout(1):
                await asyncio.gather(*(connection.closed.wait() for connection in stalled))

    await together(stalling(OPENAI), stalling(GEMINI))


TEXT = said("word", 12)
"""What all targets would say, so that each can go on where another broke off."""


def continues(then: Callable[[list[Any]], Steps], asked: list[Any]) -> Reply:
    """Go on with a text where its prefix ends, the next words, and end as ``then`` says."""

    def reply(request: Request) -> Steps:
        asked.append(request.json)
        prefix = ""
        if request.json.get("continue_final_message"):
            last = request.json["messages"][-1]
            assert last["role"] == "assistant"
            prefix = last["content"]
        assert TEXT.text.startswith(prefix)
        return then(_words_after(prefix))

    return reply


def _words_after(prefix: str) -> list[Any]:
    words = TEXT.text.removeprefix(prefix)
    return [VLLM.text(words[at : at + 8]) for at in range(0, len(words), 8)]


def whole_rest(some: list[Any]) -> Steps:
    return sse_reply([*some, *VLLM.ending("fallback", len(some))])


def first_two(broken: Break) -> Break:
    return lambda some: broken(some[:2])


@pytest.mark.parametrize("name", breaks_of(VLLM))
async def test_a_text_is_continued_where_it_broke_even_twice(name: str) -> None:
    broken = first_two(breaks_of(VLLM)[name])
    asked: list[Any] = []
    async with stage(VLLM, TRUE, more=NEVER_OPENS) as made:
        made.primary.always(continues(broken, asked))
        made.same.always(continues(broken, asked))
        made.fallback.always(continues(whole_rest, asked))
        stream = made.client.stream_chat("Hi", model="sized", max_output_tokens=50, stream_recovery="resume")
        answer = await stream.result()
        assert answer.text == TEXT.text
        assert [a.target for a in answer.route.attempts] == ["a1", "same1", "b1"]
        prefixes = [request["messages"][-1]["content"] for request in asked[1:]]
        assert [len(prefix) for prefix in prefixes] == [16, 32]
        limits = [request["max_tokens"] for request in asked]
        assert limits == [50, 50 - 4, 50 - 8]
        rest = (len(TEXT.text) - 32 + 7) // 8
        assert answer.usage.output_tokens == 4 + 4 + rest, "what all three gave, two of it estimated"


@pytest.mark.parametrize("delivered", ["word-0 ", "word-0\n", " "])
async def test_what_ends_in_white_space_starts_over(delivered: str) -> None:
    asked: list[Any] = []
    async with stage(VLLM, TRUE, more=NEVER_OPENS) as made:
        made.primary.always(broken_off([VLLM.text(delivered)]))
        made.fallback.always(continues(whole_rest, asked))
        answer = await made.client.stream_chat("Hi", stream_recovery="resume").result()
        assert answer.text == TEXT.text
        assert "continue_final_message" not in asked[0]


@pytest.mark.parametrize(
    "options",
    [
        {"stop_sequences": ["END"]},
        {"tools": KINDS[1].options["tools"]},
        {"response_format": KINDS[3].options["response_format"]},
        {"reasoning_effort": "low"},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_what_may_not_be_continued_starts_over(options: dict[str, Any]) -> None:
    asked: list[Any] = []
    async with stage(VLLM, TRUE, more=NEVER_OPENS) as made:
        made.primary.always(broken_off([VLLM.text("Once "), VLLM.text("upon")]))
        made.fallback.always(continues(whole_rest, asked))
        answer = await made.client.stream_chat("Hi", stream_recovery="resume", **options).result()
        assert answer.text == TEXT.text
        assert "continue_final_message" not in asked[0]


async def test_a_target_that_refuses_to_go_on_starts_over_and_the_next_goes_on_from_there() -> None:
    asked: list[Any] = []
    async with stage(VLLM, TRUE, more=NEVER_OPENS) as made:
        text = KINDS[0]
        made.primary.always(broken_off(text.events(VLLM, "primary")[:1]))
        made.same.always(_restarted_then_broken)
        made.fallback.always(continues(whole_rest, asked))
        answer = await made.client.stream_chat("Hi", model="sized", stream_recovery="resume").result()
        assert answer.text == TEXT.text
        assert [a.target for a in answer.route.attempts] == ["a1", "same1", "same1", "b1"]
        assert len(asked[0]["messages"][-1]["content"]) == 16


def _restarted_then_broken(request: Request) -> Steps:
    if request.json.get("continue_final_message"):
        return json_reply({"error": {"message": "no", "code": 400}}, 400)
    return broken_off(_words_after("")[:2])
