"""What a call costs, through the whole server: in Usage and in spans, however an attempt ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelrouter.v1 import embed_pb2
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, events_of, pieces, serving
from tests.telemetry.collector import Collector, attributes, collector
from tests.upstream import SSE_HEAD, End, Reply, Upstream, event, json_reply, sse_reply

PER_INPUT, PER_OUTPUT, PER_REQUEST = 2_000, 6_000, 1_000_000
"""Nano-USD: what the configuration below says, 2 and 6 USD per million tokens and a tenth of a cent."""

ANSWERED = 3 * PER_INPUT + 2 * PER_OUTPUT + PER_REQUEST
"""Of the usage that the upstreams report."""

PROMPT = "What is the capital of France?"
ASKED = 8 * PER_INPUT + PER_REQUEST
"""Of the prompt alone: four characters are a token."""

STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])


@asynccontextmanager
async def priced(a: Upstream, b: Upstream, route: str = "") -> AsyncIterator[tuple[Served, Collector]]:
    """A server whose targets have one price; spans are there once it has ended."""
    price = "price: {input: 2, output: 6, request: 0.001}"
    async with collector() as otlp:
        text = f"""
            providers:
              a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: null, retries: 0,
                   timeouts: {{first_token: 1s, idle: 1s, unary: 1s}}}}
              b: {{kind: openai, api_key: k, base_url: "{b.base_url}", health_check: null}}
            targets:
              a1: {{provider: a, model: model-a, {price}}}
              b1: {{provider: b, model: model-b, {price}}}
            routes: {{chat: {{targets: [a1, b1]{route}}}}}
            telemetry: {{otlp_endpoint: '{otlp.url}'}}
        """
        async with serving(text) as served:
            yield served, otlp


def whole(*, streaming: bool) -> Reply:
    return sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer())


async def asked(served: Served, *, streaming: bool, **fields: Any) -> tuple[Any, Any]:
    """Return the usage of an answer and its route."""
    request = chat(text=PROMPT, **fields)
    if not streaming:
        response = await served.stub.Chat(request, timeout=20)
        return response.usage, response.route
    finished = (await events_of(served.stub.StreamChat(request, timeout=20)))[-1][1]
    return finished.usage, finished.route


def costs(otlp: Collector) -> tuple[int | None, dict[str, int | None]]:
    """Return what the call cost by its span, and each attempt by its own."""
    name = "modelrouter.{}.cost_nano_usd"
    tries = {s.name: attributes(s.attributes) for s in otlp.spans if s.name.startswith("chat ")}
    call = attributes(otlp.span("route chat").attributes).get(name.format("call"))
    return call, {attempt[5:]: said.get(name.format("attempt")) for attempt, said in tries.items()}


@STREAMING
async def test_an_answer_costs_its_tokens_and_its_request(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(whole(streaming=streaming))
        async with priced(a, b) as (served, otlp):
            usage, route = await asked(served, streaming=streaming)
            assert usage.cost_nano_usd == route.attempts[-1].usage.cost_nano_usd == ANSWERED
    assert costs(otlp) == (ANSWERED, {"model-a": ANSWERED})


async def test_vectors_cost_their_inputs_and_their_request() -> None:
    reply = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": {"prompt_tokens": 7}}
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(reply))
        async with priced(a, b) as (served, _otlp):
            inputs = [embed_pb2.EmbedInput(text="cat")]
            response = await served.stub.Embed(embed_pb2.EmbedRequest(model="chat", inputs=inputs))
            assert response.usage.cost_nano_usd == 7 * PER_INPUT + PER_REQUEST


async def test_a_stream_that_broke_costs_what_it_had_said() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.RESET))
        b.always(whole(streaming=True))
        async with priced(a, b, ", stream_recovery: restart") as (served, otlp):
            usage, route = await asked(served, streaming=True)
            assert usage.cost_nano_usd == ANSWERED
            assert [x.usage.cost_nano_usd for x in route.attempts] == [ASKED + PER_OUTPUT, ANSWERED]
    broken = ASKED + PER_OUTPUT
    assert costs(otlp) == (broken + ANSWERED, {"model-a": broken, "model-b": ANSWERED})


@STREAMING
async def test_one_that_was_too_slow_costs_its_prompt(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always(whole(streaming=streaming))
        async with priced(a, b) as (served, otlp):
            await asked(served, streaming=streaming)
    assert costs(otlp) == (ASKED + ANSWERED, {"model-a": ASKED, "model-b": ANSWERED})


@STREAMING
async def test_one_that_refused_costs_nothing(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({"error": {"message": "no"}}, 503))
        b.always(whole(streaming=streaming))
        async with priced(a, b) as (served, otlp):
            await asked(served, streaming=streaming)
    assert costs(otlp) == (ANSWERED, {"model-a": None, "model-b": ANSWERED})


@STREAMING
async def test_a_hedge_s_loser_costs_its_prompt(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always(whole(streaming=streaming))
        async with priced(a, b, ", hedge: {after: 100ms, max_extra: 1.0}") as (served, otlp):
            _usage, route = await asked(served, streaming=streaming)
            assert [x.usage.cost_nano_usd for x in route.attempts] == [ASKED, ANSWERED]
    assert costs(otlp) == (ASKED + ANSWERED, {"model-a": ASKED, "model-b": ANSWERED})


@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_a_call_that_its_caller_gave_up_costs_its_prompt(method: str) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        async with priced(a, b) as (served, otlp):
            call = getattr(served.stub, method)(chat(text=PROMPT))
            await a.requested()
            call.cancel()
            await until(lambda: served.idle)
    assert costs(otlp) == (ASKED, {"model-a": ASKED})


async def test_a_stream_that_its_caller_gave_up_costs_what_it_had_said() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((*SSE_HEAD, event(pieces("Hel", finish=None)[0]), End.STALL))
        async with priced(a, b) as (served, otlp):
            call = served.stub.StreamChat(chat(text=PROMPT))
            async with asyncio.timeout(20):
                while (await call.read()).WhichOneof("event") != "delta":
                    pass
            call.cancel()
            await until(lambda: served.idle)
    assert costs(otlp) == (ASKED + PER_OUTPUT, {"model-a": ASKED + PER_OUTPUT})
