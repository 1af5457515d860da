from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, Phase, Reason, RouterError
from router_server.core.limiter import Limits
from router_server.core.needs import needs_of
from router_server.core.provider import Capability
from router_server.core.record import replace
from router_server.core.router import Router, RouterSettings
from router_server.core.target import TargetSettings
from router_server.core.types import (
    Generation,
    ReasoningEffort,
    Regex,
    Routing,
    Tool,
    Usage,
)
from tests.clock import virtual_time
from tests.core.scripted import ALL, Act, Rig, ask, done, fails, invocation, rig, said

HELLO: Sequence[Act] = [said("hello"), done(Usage(3, 2))]


async def refused(rig: Rig, request: object = None, seconds: float | None = None) -> RouterError:
    with pytest.raises(RouterError) as caught:
        await rig.router.chat(request or ask(), invocation(seconds))  # type: ignore[arg-type]
    assert rig.idle
    return caught.value


@virtual_time
async def test_the_first_target_answers() -> None:
    r = rig([HELLO], [HELLO])
    result = await r.router.chat(ask(), invocation())
    assert result.answer.message.content[0].text == "hello"  # type: ignore[union-attr]
    assert (result.trail.target, result.trail.fallback) == ("a", False)
    assert result.trail.reported_model == "scripted-1"
    assert result.usage == Usage(3, 2)
    assert [a.outcome for a in result.trail.attempts] == [Outcome.OK]
    assert not r.providers["b"].calls
    assert r.idle


@pytest.mark.parametrize(
    ("outcome", "asked_a", "asked_b", "reason"),
    [
        (Outcome.INVALID_REQUEST, 1, 0, Reason.INVALID_REQUEST),
        (Outcome.CONTEXT_LENGTH, 1, 1, None),
        (Outcome.CONTENT_FILTER, 1, 0, Reason.CONTENT_FILTERED),
        (Outcome.AUTH, 1, 1, None),
        (Outcome.MODEL_MISSING, 1, 1, None),
        (Outcome.RATE_LIMITED, 1, 1, None),
        (Outcome.UNAVAILABLE, 2, 1, None),
        (Outcome.TIMEOUT, 1, 1, None),
        (Outcome.MALFORMED, 1, 1, None),
        (Outcome.SATURATED, 1, 1, None),
    ],
)
@virtual_time
async def test_who_is_asked_after_each_class(
    outcome: Outcome, asked_a: int, asked_b: int, reason: Reason | None
) -> None:
    r = rig([[fails(outcome)]], [HELLO])
    if reason is None:
        result = await r.router.chat(ask(), invocation())
        assert result.trail.target == "b"
        assert result.trail.fallback
        assert result.trail.attempts[0].outcome is outcome
        assert [(f.from_target, f.to_target, f.reason) for f in r.recorder.failovers] == [("a", "b", outcome)]
    else:
        assert (await refused(r)).reason is reason
    assert (len(r.providers["a"].calls), len(r.providers["b"].calls)) == (asked_a, asked_b)
    assert r.idle


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ((Outcome.UNAVAILABLE, Outcome.AUTH), Reason.ALL_TARGETS_FAILED),
        ((Outcome.TIMEOUT, Outcome.SATURATED), Reason.ALL_TARGETS_FAILED),
        ((Outcome.RATE_LIMITED, Outcome.MALFORMED), Reason.ALL_TARGETS_FAILED),
        ((Outcome.SATURATED, Outcome.RATE_LIMITED), Reason.ROUTER_SATURATED),
        ((Outcome.RATE_LIMITED, Outcome.CONTEXT_LENGTH), Reason.ALL_TARGETS_RATE_LIMITED),
        ((Outcome.CONTEXT_LENGTH, Outcome.AUTH), Reason.CONTEXT_LENGTH_EXCEEDED),
        ((Outcome.AUTH, Outcome.AUTH), Reason.UPSTREAM_AUTH_FAILED),
        ((Outcome.MODEL_MISSING, Outcome.MODEL_MISSING), Reason.UPSTREAM_MODEL_MISSING),
    ],
)
@virtual_time
async def test_several_targets_failing_differently(outcomes: tuple[Outcome, Outcome], reason: Reason) -> None:
    r = rig(*[[[fails(outcome, retry_after=50.0)]] for outcome in outcomes])
    error = await refused(r, seconds=10.0)
    assert error.reason is reason
    assert [a.outcome for a in error.attempts if a.outcome is not Outcome.UNAVAILABLE] == [
        o for o in outcomes if o is not Outcome.UNAVAILABLE
    ]


@virtual_time
async def test_a_rate_limited_target_is_waited_for_only_when_nobody_else_is_left() -> None:
    r = rig([[fails(Outcome.RATE_LIMITED, retry_after=2.0)], HELLO])
    result = await r.router.chat(ask(), invocation())
    assert result.trail.target == "a"
    assert r.providers["a"].times == [0.0, 2.0]
    other = rig([[fails(Outcome.RATE_LIMITED, retry_after=2.0)], HELLO], [[fails(Outcome.UNAVAILABLE)]])
    result = await other.router.chat(ask(), invocation())
    assert result.trail.target == "a"
    assert other.providers["a"].times[1] == pytest.approx(other.providers["a"].times[0] + 2.0)


@virtual_time
async def test_an_unavailable_target_that_says_when_is_not_retried_sooner() -> None:
    busy = fails(Outcome.UNAVAILABLE, retry_after=2.0)
    alone = rig([[busy], HELLO])
    assert (await alone.router.chat(ask(), invocation())).trail.target == "a"
    assert alone.providers["a"].times == [0.0, 2.0]
    followed = rig([[busy]], [HELLO])
    assert (await followed.router.chat(ask(), invocation())).trail.target == "b"
    assert len(followed.providers["a"].calls) == 1
    late = rig([[busy]])
    began = asyncio.get_running_loop().time()
    assert (await refused(late, seconds=1.0)).reason is Reason.ALL_TARGETS_FAILED
    assert asyncio.get_running_loop().time() == began, "a wait beyond the deadline is not begun"


@pytest.mark.parametrize(
    ("targets", "wait"),
    [
        ([(Outcome.UNAVAILABLE, 40.0)], 40.0),
        ([(Outcome.UNAVAILABLE, 40.0), (Outcome.UNAVAILABLE, 30.0)], 30.0),
        ([(Outcome.UNAVAILABLE, 40.0), (Outcome.RATE_LIMITED, 20.0)], 20.0),
        ([(Outcome.UNAVAILABLE, 40.0), (Outcome.TIMEOUT, None)], 1.0),
        ([(Outcome.UNAVAILABLE, 40.0), (Outcome.AUTH, None), (Outcome.MODEL_MISSING, None)], 40.0),
        ([(Outcome.UNAVAILABLE, 0.5), (Outcome.MALFORMED, None)], 0.5),
        ([(Outcome.SATURATED, None), (Outcome.RATE_LIMITED, 20.0)], 1.0),
        ([(Outcome.RATE_LIMITED, 30.0), (Outcome.RATE_LIMITED, 20.0)], 20.0),
    ],
)
@virtual_time
async def test_a_retry_is_advised_when_the_first_target_may_be_asked_again(
    targets: list[tuple[Outcome, float | None]], wait: float
) -> None:
    r = rig(*[[[fails(outcome, retry_after=after)]] for outcome, after in targets])
    assert (await refused(r, seconds=0.4)).retry_after == wait


@virtual_time
async def test_what_has_passed_of_a_wait_is_not_waited_again() -> None:
    r = rig([[fails(Outcome.UNAVAILABLE, retry_after=9.0)]], [[4.0, fails(Outcome.AUTH)]])
    assert (await refused(r, seconds=12.0)).retry_after == 5.0


@virtual_time
async def test_a_retry_is_not_advised_before_the_breaker_lets_it_through() -> None:
    r = rig([[fails(Outcome.MALFORMED)]])
    advised = [(await refused(r)).retry_after for _ in range(5)]
    assert advised == [1.0] * 4 + [10.0]


@virtual_time
async def test_a_rest_that_does_not_fit_the_deadline_ends_the_call_at_once() -> None:
    r = rig([[fails(Outcome.RATE_LIMITED, retry_after=20.0)]])
    error = await refused(r, seconds=5.0)
    assert error.reason is Reason.ALL_TARGETS_RATE_LIMITED
    assert error.retry_after == 20.0
    assert asyncio.get_running_loop().time() == 0.0
    second = await refused(r, seconds=100.0)
    assert second.reason is Reason.ALL_TARGETS_RATE_LIMITED, "a cooling target is never asked"
    assert len(r.providers["a"].calls) == 1


@virtual_time
async def test_rests_without_retry_after_double_to_thirty_seconds() -> None:
    r = rig([[fails(Outcome.RATE_LIMITED)]])
    await refused(r, seconds=200.0)
    times = r.providers["a"].times
    waits = [round(b - a, 6) for a, b in itertools.pairwise(times)]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30][: len(waits)]
    assert len(waits) >= 8


@virtual_time
async def test_an_unauthorised_target_is_benched_and_its_breaker_opens() -> None:
    r = rig([[fails(Outcome.AUTH, status=401)]], [HELLO])
    await r.router.chat(ask(), invocation())
    assert r.state("a") == "open"
    await r.router.chat(ask(), invocation())
    assert len(r.providers["a"].calls) == 1


@virtual_time
async def test_a_forbidden_target_is_benched_but_its_breaker_waits_for_the_check() -> None:
    r = rig([[fails(Outcome.AUTH, status=403)]], [HELLO])
    await r.router.chat(ask(), invocation())
    assert r.state("a") == "closed"
    assert not r.targets["a"].serving


@virtual_time
async def test_unavailable_counts_once_per_call() -> None:
    r = rig([[fails(Outcome.UNAVAILABLE)]], retries=3)
    for _ in range(4):
        await refused(r)
    assert r.state("a") == "closed"
    await refused(r)
    assert r.state("a") == "open"
    assert len(r.providers["a"].calls) == 4 * 4 + 1, "an open breaker ends the retries too"


@virtual_time
async def test_when_all_are_open_the_least_bad_is_tried_once() -> None:
    r = rig([[fails(Outcome.UNAVAILABLE)]], [[fails(Outcome.UNAVAILABLE)]], retries=0)
    for _ in range(5):
        await refused(r)
    assert [r.state("a"), r.state("b")] == ["open", "open"]
    before = len(r.providers["a"].calls), len(r.providers["b"].calls)
    error = await refused(r)
    assert error.reason is Reason.ALL_TARGETS_FAILED
    assert (len(r.providers["a"].calls), len(r.providers["b"].calls)) == (before[0] + 1, before[1])
    r.providers["a"].scripts = [HELLO]
    assert (await r.router.chat(ask(), invocation())).trail.target == "a"


@virtual_time
async def test_context_length_goes_only_to_larger_or_unknown_windows() -> None:
    sizes = {"a": 8000, "b": 8000, "c": 4000, "d": None, "e": 16000}
    overrides = {n: TargetSettings(n, n, ALL, context_window=size) for n, size in sizes.items()}
    too_long = [[fails(Outcome.CONTEXT_LENGTH)]]
    r = rig(too_long, too_long, too_long, too_long, too_long, overrides=overrides)
    error = await refused(r)
    assert error.reason is Reason.CONTEXT_LENGTH_EXCEEDED
    assert [n for n, p in r.providers.items() if p.calls] == ["a", "d", "e"]


@virtual_time
async def test_the_deadline_is_one_budget_shared_with_whoever_is_left() -> None:
    r = rig([[100.0]], [[100.0]], timeouts=Timeouts(unary=50.0))
    error = await refused(r, seconds=20.0)
    assert error.reason is Reason.DEADLINE_EXCEEDED
    assert error.phase is Phase.FIRST_TOKEN
    half = (20.0 - 0.05) / 2
    assert [round(a.duration, 6) for a in error.attempts] == [round(half, 6), round(half, 6)]
    assert asyncio.get_running_loop().time() == pytest.approx(19.95)


@virtual_time
async def test_a_timer_cut_short_by_the_caller_is_neutral_below_five_seconds() -> None:
    r = rig([[100.0]])
    for _ in range(10):
        await refused(r, seconds=2.0)
    assert r.state("a") == "closed"
    for _ in range(5):
        await refused(r, seconds=6.0)
    assert r.state("a") == "open"


@virtual_time
async def test_the_deadline_in_the_queue() -> None:
    r = rig([[30.0, *HELLO]], limits=Limits(max_concurrency=1, queue_timeout=60.0))
    holder = asyncio.create_task(r.router.chat(ask(), invocation()))
    await asyncio.sleep(0)
    with pytest.raises(RouterError) as caught:
        await r.router.chat(ask(), invocation(2.0))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert caught.value.phase is Phase.QUEUE
    await holder
    assert r.idle


@virtual_time
async def test_a_full_queue_spills_over_to_the_next_target() -> None:
    r = rig([[10.0, *HELLO]], [HELLO], limits=Limits(max_concurrency=1, max_queue=0))
    holder = asyncio.create_task(r.router.chat(ask(), invocation()))
    await asyncio.sleep(0)
    result = await r.router.chat(ask(), invocation())
    assert result.trail.target == "b"
    assert result.trail.attempts[0].outcome is Outcome.SATURATED
    assert result.trail.attempts[0].error_reason == "queue_full"
    await holder


@virtual_time
async def test_defaults_and_caps_of_the_target() -> None:
    overrides = {"a": TargetSettings("a", "m", ALL, max_output_tokens=100, temperature=0.7)}
    r = rig([HELLO], overrides=overrides)
    await r.router.chat(ask(), invocation())
    await r.router.chat(ask(generation=Generation(max_output_tokens=500, temperature=0.0)), invocation())
    await r.router.chat(ask(generation=Generation(max_output_tokens=5)), invocation())
    sent = [c.request.generation for c in r.providers["a"].calls]
    assert [(g.max_output_tokens, g.temperature) for g in sent] == [(100, 0.7), (100, 0.0), (5, 0.7)]


@virtual_time
async def test_options_for_the_kind_and_the_provider_are_merged() -> None:
    r = rig([HELLO])
    options = {"scripted": {"x": 1, "y": 1}, "a": {"y": 2}, "other": {"z": 3}}
    await r.router.chat(ask(provider_options=options), invocation())
    assert r.providers["a"].calls[0].options == {"x": 1, "y": 2}


@virtual_time
async def test_a_need_that_some_can_meet_skips_the_others() -> None:
    overrides = {"a": TargetSettings("a", "m", ALL - {Capability.TOOLS})}
    r = rig([HELLO], [HELLO], overrides=overrides)
    result = await r.router.chat(ask(tools=(Tool("f"),)), invocation())
    assert (result.trail.target, result.trail.fallback) == ("b", False)


@virtual_time
async def test_a_need_that_none_can_meet_is_named() -> None:
    overrides = {"a": TargetSettings("a", "m", ALL - {Capability.REGEX})}
    r = rig([HELLO], overrides=overrides)
    error = await refused(r, ask(response_format=Regex("a+")))
    assert error.reason is Reason.CAPABILITY_UNSUPPORTED
    assert error.metadata == {"capability": "regex"}
    assert r.recorder.calls[-1].error is Reason.CAPABILITY_UNSUPPORTED


@virtual_time
async def test_allowed_targets_restrict_and_order() -> None:
    r = rig([HELLO], [HELLO], [HELLO])
    result = await r.router.chat(ask(routing=Routing(allowed_targets=("c", "b"))), invocation())
    assert (result.trail.target, result.trail.fallback) == ("c", False)
    error = await refused(r, ask(routing=Routing(allowed_targets=("b", "zz"))))
    assert error.reason is Reason.INVALID_REQUEST
    assert [v.field for v in error.violations] == ["routing.allowed_targets[1]"]


@virtual_time
async def test_without_failover_only_one_target_is_asked() -> None:
    r = rig([[fails(Outcome.TIMEOUT)]], [HELLO])
    error = await refused(r, ask(routing=Routing(allow_failover=False)))
    assert error.reason is Reason.ALL_TARGETS_FAILED
    assert not r.providers["b"].calls


@virtual_time
async def test_unknown_route() -> None:
    error = await refused(rig([HELLO]), replace(ask(), model="nobody"))
    assert error.reason is Reason.MODEL_NOT_FOUND


@virtual_time
async def test_cancelling_gives_everything_back() -> None:
    r = rig([[10.0, *HELLO]], limits=Limits(max_concurrency=1))
    running = asyncio.create_task(r.router.chat(ask(), invocation()))
    queued = asyncio.create_task(r.router.chat(ask(), invocation()))
    await asyncio.sleep(1.0)
    for task in (queued, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert r.idle
    assert [c.cancelled for c in r.recorder.calls] == [True, True]
    assert [a.outcome for a in r.recorder.attempts] == [Outcome.CANCELLED] * 2
    assert r.state("a") == "closed"


@virtual_time
async def test_a_bug_in_a_provider_is_a_bug_and_holds_nothing() -> None:
    r = rig([[ValueError("secret")]], [HELLO])
    with pytest.raises(ValueError, match="secret"):
        await r.router.chat(ask(), invocation())
    assert r.idle
    assert r.recorder.calls[-1].error is Reason.INTERNAL


@virtual_time
async def test_usage_is_estimated_where_the_upstream_says_nothing_and_priced_where_a_price_is_known() -> None:
    overrides = {"a": TargetSettings("a", "m", ALL, cost=lambda u: u.input_tokens * 10)}
    r = rig([[said("four char"), done()]], overrides=overrides)
    result = await r.router.chat(ask("12345678"), invocation())
    assert result.usage == Usage(2, 3, estimated=True, cost_nano_usd=20)
    assert r.recorder.calls[0].usage == result.usage


@virtual_time
async def test_the_trace_context_goes_up_unless_the_provider_opts_out() -> None:
    r = rig([HELLO])
    await r.router.chat(ask(), invocation())
    r.upstreams["a"].trace_context = False
    await r.router.chat(ask(), invocation())
    assert [dict(c.headers) for c in r.providers["a"].calls] == [{"traceparent": "00-1"}, {}]


@virtual_time
async def test_direct_calls_only_where_they_are_allowed() -> None:
    r = rig([HELLO])
    error = await refused(r, replace(ask(), model="a/model-x"))
    assert error.reason is Reason.MODEL_NOT_FOUND
    clock = asyncio.get_running_loop().time
    direct = Router(
        [],
        r.checks,
        r.recorder,
        clock=clock,
        direct=lambda p, m: r.targets["a"] if (p, m) == ("a", "x/y") else None,
    )
    result = await direct.chat(replace(ask(), model="a/x/y"), invocation())
    assert (result.trail.route, result.trail.target, result.model) == ("direct", "a", "a/x/y")


@virtual_time
async def test_a_default_deadline_applies_where_the_caller_gives_none() -> None:
    r = rig([[1000.0]], timeouts=Timeouts(unary=5000.0), settings=RouterSettings(unary_deadline=7.0))
    error = await refused(r)
    assert error.reason is Reason.DEADLINE_EXCEEDED
    assert asyncio.get_running_loop().time() == pytest.approx(7.0)


def test_reasoning_effort_is_a_need() -> None:
    request = ask(
        generation=Generation(reasoning_effort=ReasoningEffort.LOW, seed=1, top_k=3, top_logprobs=0)
    )
    assert needs_of(request) == {
        Capability.CHAT,
        Capability.REASONING_EFFORT,
        Capability.SEED,
        Capability.TOP_K,
        Capability.LOGPROBS,
    }


@virtual_time
async def test_an_upstream_that_always_says_at_once_is_not_asked_for_ever() -> None:
    r = rig([[fails(Outcome.RATE_LIMITED, retry_after=0.0)]])
    error = await refused(r, seconds=100.0)
    assert error.reason is Reason.ALL_TARGETS_RATE_LIMITED
    assert len(r.providers["a"].calls) == 11


@virtual_time
async def test_a_provider_that_cancels_by_itself_has_failed() -> None:
    r = rig([[asyncio.CancelledError()]], [HELLO], retries=0)
    result = await r.router.chat(ask(), invocation())
    assert (result.trail.target, result.trail.attempts[0].error_reason) == ("b", "cancelled_by_provider")
    assert r.idle


@pytest.mark.parametrize(
    "reply",
    [
        [fails(Outcome.INVALID_REQUEST)],
        [fails(Outcome.SATURATED)],
        [fails(Outcome.TIMEOUT, blameless=True)],
        [1000.0],
    ],
)
@virtual_time
async def test_a_neutral_probe_is_given_back(reply: Sequence[Act]) -> None:
    r = rig([[fails(Outcome.MALFORMED)]], retries=0)
    for _ in range(5):
        await refused(r)
    await asyncio.sleep(10.0)
    r.providers["a"].scripts = [reply]
    probe = asyncio.create_task(r.router.chat(ask(), invocation()))
    await asyncio.sleep(1.0)
    probe.cancel()
    await asyncio.wait({probe})
    assert (r.state("a"), r.targets["a"].breaker.admits) == ("half_open", True)


@virtual_time
async def test_what_a_callers_own_options_spoil_does_not_count_against_the_upstream() -> None:
    r = rig([[fails(Outcome.MALFORMED)]])
    for _ in range(6):
        await refused(r, ask(provider_options={"a": {"modalities": ["audio"]}}))
    assert r.state("a") == "closed"
    for _ in range(5):
        await refused(r, ask(provider_options={"other": {"x": 1}}))
    assert r.state("a") == "open"
