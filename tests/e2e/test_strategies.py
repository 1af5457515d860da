"""Every strategy through the whole server: who is asked, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from textwrap import dedent

import pytest

from router_server import routing
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving, text_of
from tests.upstream import End, Upstream, json_reply, sse_reply

DOWN = json_reply({"error": {"message": "down"}}, 503)
OK = json_reply(answer())


@asynccontextmanager
async def three(route: str, *, a: str = "") -> AsyncIterator[tuple[Served, list[Upstream]]]:
    """Serve ``route`` over upstreams a, b and c, which answer; ``a`` are further keys of that provider."""
    quick = "health_check: null, retries: 0, timeouts: {first_token: 2s, unary: 2s}"
    async with Upstream() as first, Upstream() as second, Upstream() as third:
        for upstream in (first, second, third):
            upstream.always(OK)
        text = dedent(f"""
            providers:
              a: {{kind: openai, api_key: k, base_url: "{first.base_url}", {quick}{a}}}
              b: {{kind: openai, api_key: k, base_url: "{second.base_url}", {quick}}}
              c: {{kind: openai, api_key: k, base_url: "{third.base_url}", {quick}}}
            targets:
              a: {{provider: a, model: m, price: {{input: 1, output: 1}}}}
              b: {{provider: b, model: m, price: {{request: 0.001}}}}
              c: {{provider: c, model: m, price: {{input: 9, output: 9, request: 1}}}}
            routes:
              chat: {route}
        """)
        async with serving(text) as served:
            yield served, [first, second, third]


async def asked(served: Served, count: int, **fields: object) -> str:
    answers = [await served.stub.Chat(chat(**fields), timeout=10) for _ in range(count)]  # type: ignore[arg-type]
    return "".join(one.route.target for one in answers)


async def test_weights_hold_in_every_window() -> None:
    route = "{targets: [{target: a, weight: 3}, {target: b, weight: 1}], strategy: weighted, fallback: [c]}"
    async with three(route) as (served, _upstreams):
        order = await asked(served, 12)
    assert all(Counter(order[i : i + 4]) == {"a": 3, "b": 1} for i in range(9))


async def test_turns_pass_over_a_target_that_rests_and_fallback_waits_for_all() -> None:
    async with three("{targets: [a, b], strategy: round_robin, fallback: [c]}") as (served, upstreams):
        assert await asked(served, 4) == "abab"
        upstreams[0].always(json_reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "60"}))
        answer = await served.stub.Chat(chat(), timeout=10)
        assert [x.target for x in answer.route.attempts] == ["a", "b"]
        assert await asked(served, 3) == "bbb"
        upstreams[1].always(DOWN)
        answer = await served.stub.Chat(chat(), timeout=10)
        assert answer.route.target == "c"


async def test_streams_take_their_turns_among_the_others() -> None:
    async with three("{targets: [a, b], strategy: round_robin, fallback: [c]}") as (served, upstreams):
        assert await asked(served, 1) == "a"
        for upstream in upstreams:
            upstream.always(sse_reply(pieces("Hel", "lo")))
        upstreams[0].then(json_reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "60"}))
        turns = [await events_of(served.stub.StreamChat(chat(), timeout=10)) for _ in range(3)]
        assert [text_of(events) for events in turns] == ["Hello"] * 3
        assert [events[-1][1].route.target for events in turns] == ["b", "b", "b"]
        assert [[x.target for x in events[-1][1].route.attempts] for events in turns][1] == ["a", "b"]


@pytest.mark.parametrize("name", ["least_inflight", "least_connections"])
async def test_a_busy_target_is_left_for_an_idle_one(name: str) -> None:
    async with three(f"{{targets: [a, b], strategy: {name}}}") as (served, upstreams):
        go = asyncio.Event()
        upstreams[0].always((go, *OK))
        held = asyncio.create_task(asked(served, 1))
        await upstreams[0].requested()
        assert await asked(served, 3) == "bbb"
        go.set()
        assert await held == "a"


async def test_a_target_without_a_place_is_passed_over() -> None:
    async with three("{targets: [a, b], strategy: round_robin}", a=", max_concurrency: 1") as (
        served,
        upstreams,
    ):
        go = asyncio.Event()
        upstreams[0].always((go, *OK))
        held = asyncio.create_task(asked(served, 1))
        await upstreams[0].requested()
        assert await asked(served, 3) == "bbb"
        go.set()
        assert await held == "a"


async def test_the_quickest_is_asked_and_a_timeout_makes_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "random", Random(7))  # noqa: S311 - the same each time
    async with three("{targets: [a, b], strategy: lowest_latency}") as (served, upstreams):
        upstreams[0].always((End.STALL,))
        order = await asked(served, 40)
    assert order.count("b") == 40
    assert len(upstreams[0].requests) < 10, "asked for the first time, and when exploring"


async def test_chance_is_as_the_weights_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "random", Random(7))  # noqa: S311 - the same each time
    route = "{targets: [{target: a, weight: 3}, {target: b, weight: 1}], strategy: random, fallback: [c]}"
    async with three(route) as (served, _upstreams):
        counts = Counter(await asked(served, 400))
    assert counts["a"] == pytest.approx(300, abs=25)
    assert counts["a"] + counts["b"] == 400


async def test_the_cheapest_depends_on_the_calls_size() -> None:
    async with three("{targets: [c, b, a], strategy: lowest_cost}") as (served, upstreams):
        assert await asked(served, 2, text="Hi") == "aa"
        assert await asked(served, 2, text="long " * 2_000) == "bb"
        assert await asked(served, 1, text="Hi", generation={"max_output_tokens": 2_000}) == "a"
        upstreams[0].always(DOWN)
        assert await asked(served, 1, text="Hi") == "b"


async def test_callers_may_name_targets_and_refuse_failover_under_any_strategy() -> None:
    async with three("{targets: [a, b], strategy: round_robin, fallback: [c]}") as (served, upstreams):
        assert await asked(served, 2, routing={"allowed_targets": ["c", "a"]}) == "cc"
        upstreams[0].always(DOWN)
        failure = await fails(served.stub.Chat(chat(routing={"allow_failover": False}), timeout=10))
        assert failure.reason == "ALL_TARGETS_FAILED"
        assert len(upstreams[1].requests) == 0
