"""The faults of somebody else, `llmock`, and its own verdict on how the router takes them.

It sees only what reaches it. Where another target gave the answer it says that the router gave up, or used
the stream that it cut or garbled: those findings are listed here, call by call, and there are no others.
Where it is the other target too, it has nothing to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from textwrap import dedent

import pytest
from llmock.pytest_plugin import LLMock

from modelrouter import AsyncClient
from tests.e2e.serving import Served, serving
from tests.faults.faults import whole
from tests.faults.stage import OF_FALLBACK, told
from tests.faults.wires import GEMINI, OPENAI, Wire, provider_keys
from tests.upstream import Upstream

WORDS = "one two three four five six seven eight nine ten"
WAYS = ("stream", "unary")
Script = Callable[[LLMock], object]


@dataclass(frozen=True)
class Case:
    """What llmock does, who answers then (None: nobody, as it should be), and what it finds."""

    name: str
    script: Script
    answers: str | None
    findings: tuple[str, ...] = ()
    ways: tuple[str, ...] = WAYS

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


RESCUED = [
    Case("429 once", lambda mock: mock.rate_limit(retry_after=0.3), "b1", ("gave_up",)),
    Case("429 for ever", lambda mock: mock.rate_limit(times=None), "b1", ("gave_up",)),
    Case("500 once", lambda mock: mock.fail(500), "a1"),
    Case("500 for ever", lambda mock: mock.fail(500, times=None), "b1"),
    Case("503 that says when", lambda mock: mock.outage(), "b1", ("gave_up",)),
    Case("401", lambda mock: mock.fail(401), "b1"),
    Case("404", lambda mock: mock.fail(404), "b1"),
    Case("context", lambda mock: mock.context_overflow(), "b1"),
    Case("400", lambda mock: mock.fail(400), None),
    Case("422", lambda mock: mock.fail(422), None),
    Case("silence", lambda mock: mock.delay(1), "b1"),
    Case("slow first token", lambda mock: mock.slow_first_token(20), "b1", ways=("stream",)),
    Case("cut", lambda mock: mock.disconnect(after_chunks=4), "b1", ("gave_up",), ("stream",)),
    Case("stall", lambda mock: mock.stall(after_chunks=4), "b1", ways=("stream",)),
    Case(
        "end", lambda mock: mock.truncate(after_chunks=4), "b1", ("truncated_stream_accepted",), ("stream",)
    ),
    Case(
        "garbled", lambda mock: mock.corrupt(after_chunks=4), "b1", ("malformed_chunk_ignored",), ("stream",)
    ),
]

PATIENT = [
    Case("429", lambda mock: mock.rate_limit(retry_after=0.5), "a1"),
    Case("503 that says when", lambda mock: mock.fail(503, retry_after=0.5), "a1"),
    Case("500", lambda mock: mock.fail(500), "a1"),
    Case("cut", lambda mock: mock.disconnect(after_chunks=4), "a1", ways=("stream",)),
]

SEEN = [
    Case("cut", lambda mock: mock.disconnect(after_chunks=4), "b1", ways=("stream",)),
    Case("end", lambda mock: mock.truncate(after_chunks=4), "b1", ways=("stream",)),
    Case("stall", lambda mock: mock.stall(after_chunks=4), "b1", ways=("stream",)),
]


def cases(of: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("case", "wire", "way"),
        [
            pytest.param(case, wire, way, id=f"{case}-{wire.kind}-{way}")
            for case in of
            for wire in (OPENAI, GEMINI)
            for way in case.ways
        ],
    )


def keys_of(mock: LLMock, wire: Wire) -> str:
    base = mock.base_url("openai") if wire is OPENAI else f"{mock.base_url('gemini')}/v1beta"
    return f'kind: {wire.kind}, api_key: very-secret-key, base_url: "{base}"'


@asynccontextmanager
async def router(primary: str, fallback: str) -> AsyncIterator[tuple[Served, AsyncClient]]:
    quick = ", timeouts: {first_token: 0.6s, idle: 0.6s, unary: 0.6s}, health_check: null"
    text = f"""
        providers:
          a: {{{primary}{quick}}}
          b: {{{fallback}{quick}}}
        targets:
          a1: {{provider: a, model: gemini-2.5-pro}}
          b1: {{provider: b, model: gemini-2.5-pro}}
        routes:
          chat: {{targets: [a1, b1]}}
          alone: {{targets: [a1]}}
    """
    async with serving(dedent(text)) as served, AsyncClient(served.target) as client:
        yield served, client


async def answered(client: AsyncClient, way: str, model: str = "chat") -> tuple[str | None, str]:
    """Call, and return who answered and what."""
    call = client.stream_chat("?", model=model).result() if way == "stream" else client.chat("?", model=model)
    answer = (await told(call)).answer
    return (None, "") if answer is None else (answer.route.target, answer.text)


async def findings(mock: LLMock) -> tuple[str, ...]:
    """What llmock has to say, once it is done with its requests."""
    verdict = await asyncio.to_thread(mock.verdict)
    records = [attempt for call in verdict.calls for attempt in call.attempts]
    # Its word on a part that is not JSON does not ask whether the rest was read: it was not.
    assert not any("malformed" in (record.fault or "") and record.completed for record in records)
    return tuple(finding.code for finding in verdict.findings)


@cases(RESCUED)
async def test_what_llmock_cannot_see_is_all_that_it_finds(
    llmock: LLMock, case: Case, wire: Wire, way: str
) -> None:
    # What is left of a broken stream takes 200 ms more: a busy router is seen to have left before its end.
    llmock.reply(WORDS, times=None).pace(35)
    case.script(llmock)
    async with Upstream() as fallback:
        fallback.always(whole(wire, OF_FALLBACK))
        async with router(keys_of(llmock, wire), provider_keys(wire, fallback)) as (served, client):
            who, text = await answered(client, way)
            assert who == case.answers
            assert text == {"a1": WORDS, "b1": OF_FALLBACK.text, None: ""}[who]
            assert served.idle
    assert await findings(llmock) == case.findings
    if case.findings:
        assert who == "b1", "only where another target answered"


@cases(PATIENT)
async def test_alone_it_finds_nothing(llmock: LLMock, case: Case, wire: Wire, way: str) -> None:
    llmock.reply(WORDS, times=None).pace(5)
    case.script(llmock)
    only = keys_of(llmock, wire)
    async with router(only, only) as (served, client):
        assert await answered(client, way, "alone") == (case.answers, WORDS)
        assert served.idle
    assert await findings(llmock) == ()


@cases(SEEN)
async def test_as_the_other_target_too_it_finds_nothing(
    llmock: LLMock, case: Case, wire: Wire, way: str
) -> None:
    llmock.reply(WORDS, times=None).pace(5)
    case.script(llmock)
    both = keys_of(llmock, wire)
    async with router(both, both) as (served, client):
        assert await answered(client, way) == (case.answers, WORDS)
        assert served.idle
    assert await findings(llmock) == ()
