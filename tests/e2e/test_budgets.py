"""Budgets through the whole server: who is refused, who goes on elsewhere, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc import error_details_pb2

from router_server.auth.api_keys import hash_of
from router_server.core.budget import NANO_PER_USD
from tests.e2e.phases import until
from tests.e2e.serving import Served, answer, chat, events_of, fails, pieces, serving
from tests.upstream import End, Upstream, json_reply, sse_reply

COST = 3 * 1_000 + 2 * 1_000 + 1_000_000
"""Nano-USD of one answer: 3 tokens and 2 at 1 USD per million each, and a tenth of a cent for the request."""

LIMITED = chat(text="What?", generation={"maxOutputTokens": 10})
RESERVED = 2 * 1_000 + 10 * 1_000 + 1_000_000
"""Of that request: its prompt is about two tokens."""


def config(
    a: Upstream,
    b: Upstream,
    *,
    route: str = "null",
    provider: str = "null",
    extra: str = "",
    free: bool = False,
) -> str:
    price = "price: {input: 1, output: 1, request: 0.001}"
    other = "" if free else f", {price}"
    return f"""
        providers:
          a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: null, budget: {provider}}}
          b: {{kind: openai, api_key: k, base_url: "{b.base_url}", health_check: null}}
        targets:
          a1: {{provider: a, model: model-a, {price}}}
          b1: {{provider: b, model: model-b{other}}}
        routes: {{chat: {{targets: [a1, b1], budget: {route}}}}}
        {extra}
    """


def budget(nano: int, *more: str) -> str:
    return f"{{{', '.join((f'daily_usd: {nano / NANO_PER_USD:.9f}', *more))}}}"


async def spent(served: Served, subject: str) -> int:
    """Return what has been spent of a budget today."""
    ledger = served.server.works.ledger
    assert ledger is not None
    await ledger.flush()
    [account] = [one for one in ledger.accounts if one.budget.subject == subject]
    assert account.reserved == 0
    return account.spent


async def ask(served: Served, *, streaming: bool = False, **more: Any) -> str:
    """Return who answered."""
    if not streaming:
        return str((await served.stub.Chat(LIMITED, **more)).route.target)
    events = await events_of(served.stub.StreamChat(LIMITED, **more))
    return str(events[-1][1].route.target)


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_a_call_that_does_not_fit_is_refused_until_the_period_ends(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer()))
        async with serving(config(a, b, route=budget(COST + RESERVED))) as served:
            for _ in range(2):
                assert await ask(served, streaming=streaming) == "a1"
                await spent(served, "route/chat")
            method = served.stub.StreamChat if streaming else served.stub.Chat
            failure = await fails(method(LIMITED))
            assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED")
            [violation] = failure.detail(error_details_pb2.QuotaFailure).violations
            assert (violation.subject, violation.description) == ("route/chat", "daily budget")
            assert failure.retry_after is not None
            assert 0 < failure.retry_after <= 86_400
            assert failure.pushback == ("-1" if failure.retry_after > 10 else failure.pushback)
            assert failure.metadata["attempt.1"].split() == ["a1", "a", "budget", "skipped"]
            assert (await spent(served, "route/chat"), len(a.requests), len(b.requests)) == (2 * COST, 2, 0)
            assert served.server.works.ledger is not None
            [use] = served.server.works.ledger.uses()
            assert (use.subject, use.word, use.used) == ("route/chat", "daily", 2 * COST / (COST + RESERVED))
            assert served.idle


async def test_a_call_that_does_not_fit_goes_on_with_a_target_that_costs_less() -> None:
    async with Upstream() as a, Upstream() as b:
        for upstream in (a, b):
            upstream.always(json_reply(answer()))
        limited = budget(RESERVED, "on_exhausted: next")
        async with serving(config(a, b, route=limited, free=True)) as served:
            assert [await ask(served), await spent(served, "route/chat")] == ["a1", COST]
            assert [await ask(served), await spent(served, "route/chat")] == ["b1", COST]


async def test_a_provider_whose_budget_is_spent_is_passed_over() -> None:
    async with Upstream() as a, Upstream() as b:
        for upstream in (a, b):
            upstream.always(json_reply(answer()))
        limited = budget(RESERVED, "on_exhausted: next")
        async with serving(config(a, b, provider=limited)) as served:
            assert [await ask(served), await spent(served, "provider/a")] == ["a1", COST]
            response = await served.stub.Chat(LIMITED)
            assert response.route.target == "b1"
            passed_over = response.route.attempts[0]
            assert (passed_over.target, passed_over.outcome) == ("a1", passed_over.OUTCOME_BUDGET)
            assert passed_over.error_reason == "skipped"
            failure = await fails(
                served.stub.Chat(chat(generation={"maxOutputTokens": 10}, routing={"allowedTargets": ["a1"]}))
            )
            assert failure.reason == "BUDGET_EXCEEDED"


async def test_every_key_has_its_own() -> None:
    keys = ", ".join(
        f"{{name: {name}, sha256: {hash_of(name)}, budget: {budget(RESERVED)}}}" for name in ("one", "two")
    )
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply(answer()))
        async with serving(config(a, b, extra=f"auth: {{api_keys: [{keys}]}}")) as served:
            for name in ("one", "two"):
                metadata = (("x-api-key", name),)
                assert await ask(served, metadata=metadata) == "a1"
                assert await spent(served, f"key/{name}") == COST
                failure = await fails(served.stub.Chat(LIMITED, metadata=metadata))
                assert failure.detail(error_details_pb2.QuotaFailure).violations[0].subject == f"key/{name}"


async def test_people_are_told_before_it_is_spent_and_when_it_is() -> None:
    async with Upstream() as a, Upstream() as b, Upstream() as hook:
        a.always(json_reply(answer()))
        hook.always(json_reply({}))
        alerts = f'alerts: {{webhook: "{hook.base_url}", budget: [0.4, 1.0]}}'
        async with serving(config(a, b, route=budget(COST + RESERVED), extra=alerts)) as served:
            assert await ask(served) == "a1"
            await spent(served, "route/chat")
            told = (await hook.requested()).json["text"]
            assert told.startswith("The daily budget of route/chat (")
            assert told.endswith("has reached 40%: 0.001005 of 0.002017 USD are spent.")
            assert await ask(served) == "a1"
            await fails(served.stub.Chat(LIMITED))
            assert "has not enough left for every call" in (await hook.requested(2)).json["text"]
            await fails(served.stub.Chat(LIMITED))
        assert len(hook.requests) == 2


async def test_a_failure_costs_nothing_and_is_given_back() -> None:
    async with Upstream() as a, Upstream() as b:
        for upstream in (a, b):
            upstream.always(json_reply({"error": {"message": "no"}}, 503))
        async with serving(config(a, b, route=budget(RESERVED))) as served:
            for _ in range(2):
                failure = await fails(served.stub.Chat(LIMITED))
                assert failure.reason == "ALL_TARGETS_FAILED"
                assert await spent(served, "route/chat") == 0


PROMPT = 2_000
"""Nano-USD of the prompt, by the estimate."""


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_what_a_hedge_beat_is_paid_from_the_budget_too(streaming: bool) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always(sse_reply(pieces("Hel", "lo")) if streaming else json_reply(answer()))
        hedged = config(a, b, route=budget(10 * RESERVED)).replace(
            "targets: [a1, b1]", "targets: [a1, b1], hedge: {after: 100ms, max_extra: 1.0}"
        )
        async with serving(hedged) as served:
            assert await ask(served, streaming=streaming) == "b1"
            assert await spent(served, "route/chat") == PROMPT + 1_000_000 + COST


@pytest.mark.parametrize("method", ["Chat", "StreamChat"])
async def test_what_its_caller_gave_up_is_paid_from_the_budget(method: str) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        async with serving(config(a, b, route=budget(10 * RESERVED))) as served:
            call = getattr(served.stub, method)(LIMITED)
            await a.requested()
            call.cancel()
            await until(lambda: served.idle)
            assert await spent(served, "route/chat") == PROMPT + 1_000_000
