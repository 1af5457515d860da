"""Hedged calls through the router, in virtual time: target ``a`` is late, and ``b`` is asked beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import pytest

from router_server.core.breaker import BreakerSettings
from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.hedge import Hedging, Percentile
from router_server.core.limiter import Limits
from router_server.core.provider import UpstreamChat, UpstreamEmbed
from router_server.core.results import Finished, Reset, Started, Trail
from router_server.core.target import TargetSettings
from router_server.core.types import (
    Delta,
    Embeddings,
    EmbedRequest,
    Operation,
    Report,
    Routing,
    StreamItem,
    StreamRecovery,
    Usage,
    Vectors,
)
from tests.clock import virtual_time
from tests.core.scripted import (
    ALL,
    Act,
    Rig,
    ScriptedProvider,
    ask,
    collect,
    done,
    fails,
    invocation,
    rig,
    said,
)

Script = Sequence[Act]

HELLO: Script = [said("Hel"), 0.1, said("lo"), done(Usage(3, 2))]
LATE: Script = [5.0, *HELLO]
SOON: Script = [0.2, *HELLO]
KINDS = pytest.mark.parametrize("kind", ["unary", "stream"])


def at_once() -> Hedging:
    """After half a second, for every call."""
    return Hedging(0.5, 1.0)


async def ended(r: Rig, kind: str, request: object = None, seconds: float | None = None) -> Trail:
    """Make one call, which must answer "Hello", and return its trail."""
    if kind == "unary":
        result = await r.router.chat(request or ask(), invocation(seconds))  # type: ignore[arg-type]
        trail, text = result.trail, result.answer.message.content[0].text  # type: ignore[union-attr]
    else:
        events = await collect(r.router.stream(request or ask(), invocation(seconds)))  # type: ignore[arg-type]
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Finished)
        trail, text = events[-1].trail, "".join(e.text for e in events if isinstance(e, Delta))
        running = events[0].trail.attempts
        assert running[:-1] == trail.attempts[: len(running) - 1], "the loser was over before the first word"
        assert (running[-1].target, running[-1].outcome) == (trail.target, None)
        assert (events[0].trail.target, events[0].trail.fallback) == (trail.target, trail.fallback)
    assert text == "Hello"
    assert r.idle
    return trail


def tried(trail: Trail | RouterError) -> list[tuple[str, str, str]]:
    return [(a.target, a.outcome.value if a.outcome else "", a.error_reason) for a in trail.attempts]


def failovers(r: Rig) -> list[tuple[str, str, str]]:
    return [(f.from_target, f.to_target, f.reason.value) for f in r.recorder.failovers]


@KINDS
@virtual_time
async def test_the_hedge_answers_first(kind: str) -> None:
    r = rig([LATE], [SOON], hedging=at_once())
    trail = await ended(r, kind)
    assert asyncio.get_running_loop().time() == pytest.approx(0.5 + 0.2 + 0.1)
    assert r.providers["b"].times == [0.5]
    assert (trail.target, trail.fallback) == ("b", True)
    assert tried(trail) == [("a", "cancelled", "hedge_lost"), ("b", "ok", "")]
    assert failovers(r) == []
    assert [a.start.number for a in r.recorder.attempts] == [1, 2]
    assert r.state("a") == "closed"


@KINDS
@virtual_time
async def test_the_first_answers_after_all(kind: str) -> None:
    r = rig([[0.6, *HELLO]], [LATE], hedging=at_once())
    trail = await ended(r, kind)
    assert (trail.target, trail.fallback) == ("a", False)
    assert tried(trail) == [("b", "cancelled", "hedge_lost"), ("a", "ok", "")]
    assert len(r.providers["b"].calls) == 1


@KINDS
@virtual_time
async def test_who_answers_in_time_is_alone(kind: str) -> None:
    r = rig([[0.3, *HELLO]], [HELLO], hedging=at_once())
    assert tried(await ended(r, kind)) == [("a", "ok", "")]
    assert not r.providers["b"].calls


@KINDS
@virtual_time
async def test_at_a_tie_one_answers_and_the_other_is_called_off(kind: str) -> None:
    tie: Script = [(said("Hello")[0], *done(Usage(3, 2)))]
    r = rig([[1.0, *tie]], [[0.5, *tie]], hedging=at_once())
    trail = await ended(r, kind)
    assert sorted(outcome for _target, outcome, _why in tried(trail)) == ["cancelled", "ok"]
    assert tried(trail)[-1][:2] == (trail.target, "ok")


@KINDS
@virtual_time
async def test_a_failure_before_the_time_is_an_ordinary_failover(kind: str) -> None:
    hedging = Hedging(0.5, 1.0)
    r = rig([[0.2, fails(Outcome.MALFORMED)]], [HELLO], hedging=hedging)
    assert tried(await ended(r, kind)) == [("a", "malformed", "scripted"), ("b", "ok", "")]
    assert failovers(r) == [("a", "b", "malformed")]
    assert hedging.budget.allows, "nothing was spent"


@KINDS
@virtual_time
async def test_when_the_first_fails_its_hedge_is_the_call(kind: str) -> None:
    r = rig([[1.0, fails(Outcome.UNAVAILABLE)]], [[2.0, *HELLO]], hedging=at_once())
    trail = await ended(r, kind)
    assert tried(trail) == [("a", "unavailable", "scripted"), ("b", "ok", "")]
    assert failovers(r) == [("a", "b", "unavailable")]
    assert r.providers["b"].times == [0.5], "nobody is asked again: the hedge goes on"


@KINDS
@virtual_time
async def test_a_hedge_that_fails_harms_nobody(kind: str) -> None:
    for outcome in (Outcome.UNAVAILABLE, Outcome.CONTENT_FILTER, Outcome.RATE_LIMITED, Outcome.AUTH):
        r = rig([[2.0, *HELLO]], [[0.1, fails(outcome)]], [HELLO], hedging=at_once())
        trail = await ended(r, kind)
        assert tried(trail) == [("b", outcome.value, "scripted"), ("a", "ok", "")]
        assert (trail.fallback, failovers(r)) == (False, [])
        assert not r.providers["c"].calls


@pytest.mark.parametrize("first", [1.0, 3.0])
@KINDS
@virtual_time
async def test_when_both_fail_the_call_goes_on_with_whoever_is_left(kind: str, first: float) -> None:
    r = rig([[first, fails(Outcome.MALFORMED)]], [[1.5, fails(Outcome.TIMEOUT)]], [HELLO], hedging=at_once())
    trail = await ended(r, kind)
    assert trail.target == "c"
    assert {target for target, _outcome, _why in tried(trail)} == {"a", "b", "c"}
    expected = [("a", "b", "malformed"), ("b", "c", "timeout")] if first < 2 else [("a", "c", "malformed")]
    assert failovers(r) == expected


@KINDS
@virtual_time
async def test_both_failing_at_once_is_two_failures(kind: str) -> None:
    r = rig([[1.5, fails(Outcome.MALFORMED)]], [[1.0, fails(Outcome.TIMEOUT)]], [HELLO], hedging=at_once())
    assert [outcome for _t, outcome, _w in tried(await ended(r, kind))] == ["malformed", "timeout", "ok"]


@KINDS
@virtual_time
async def test_a_failure_of_the_first_that_ends_the_call_ends_the_hedge(kind: str) -> None:
    r = rig([[1.0, fails(Outcome.CONTENT_FILTER)]], [[2.0, *HELLO]], hedging=at_once())
    with pytest.raises(RouterError) as caught:
        await ended(r, kind)
    assert caught.value.reason is Reason.CONTENT_FILTERED
    assert tried(caught.value) == [("a", "content_filter", "scripted"), ("b", "cancelled", "hedge_lost")]
    assert r.idle
    assert asyncio.get_running_loop().time() == 1.0


@KINDS
@virtual_time
async def test_a_bug_in_the_hedge_is_a_bug(kind: str) -> None:
    r = rig([LATE], [[0.1, ValueError("secret")]], hedging=at_once())
    with pytest.raises(ValueError, match="secret"):
        await ended(r, kind)
    assert r.idle


class Deaf(ScriptedProvider):
    """Answers although it was cancelled, as no provider should."""

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], None]:
        self.calls.append(call)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5.0)
        yield (*said("mine"), *done())


@KINDS
@virtual_time
async def test_a_loser_that_answers_all_the_same_is_not_heard(kind: str) -> None:
    r = rig([LATE], [SOON], hedging=at_once())
    r.upstreams["a"].provider = Deaf()
    assert tried(await ended(r, kind)) == [("a", "cancelled", "hedge_lost"), ("b", "ok", "")]


@virtual_time
async def test_a_call_has_one_hedge_at_most() -> None:
    failing: Sequence[Script] = [[0.6, fails(Outcome.MALFORMED)]]
    hedging = at_once()
    for _ in range(5):
        hedging.budget.called()
    r = rig(failing, failing, [LATE], [HELLO], hedging=hedging)
    assert (await ended(r, "unary")).target == "c"
    assert not r.providers["d"].calls


@virtual_time
async def test_the_target_after_a_failover_may_be_hedged() -> None:
    r = rig([[fails(Outcome.MALFORMED)]], [LATE], [HELLO], hedging=at_once())
    trail = await ended(r, "stream")
    assert tried(trail)[1:] == [("b", "cancelled", "hedge_lost"), ("c", "ok", "")]
    assert failovers(r) == [("a", "b", "malformed")]


@virtual_time
async def test_the_time_counts_from_the_permit_not_from_the_queue() -> None:
    r = rig([[2.0, *HELLO]], [HELLO], limits=Limits(max_concurrency=1), hedging=Hedging(2.5, 1.0))
    first, second = (asyncio.create_task(ended_quietly(r)) for _ in range(2))
    assert [(await first).target, (await second).target] == ["a", "a"]
    assert not r.providers["b"].calls, "the second call waited 2 s for its permit and 2 s for its answer"


async def ended_quietly(r: Rig) -> Trail:
    return (await r.router.chat(ask(), invocation())).trail


async def broken(r: Rig, name: str) -> None:
    for _ in range(5):
        with pytest.raises(RouterError):
            await r.router.chat(ask(routing=Routing(allowed_targets=(name,))), invocation())


@KINDS
@virtual_time
async def test_a_target_that_is_not_well_is_no_hedge(kind: str) -> None:
    down = [fails(Outcome.TIMEOUT)]
    r = rig([[1.0, *HELLO]], [down], hedging=at_once())
    await broken(r, "b")
    assert r.state("b") == "open"
    asked = len(r.providers["b"].calls)
    assert (await ended(r, kind)).target == "a"
    await asyncio.sleep(10.0)
    assert r.state("b") == "half_open"
    assert (await ended(r, kind)).target == "a", (
        "whether it is well again is tried out on calls that can wait"
    )
    assert len(r.providers["b"].calls) == asked


@KINDS
@virtual_time
async def test_a_target_that_rests_is_no_hedge_and_the_one_after_it_is(kind: str) -> None:
    r = rig([LATE], [[fails(Outcome.RATE_LIMITED, retry_after=30.0)]], [SOON], hedging=at_once())
    call = asyncio.create_task(ended(r, kind))
    await asyncio.sleep(0.3)
    with pytest.raises(RouterError):
        await r.router.chat(ask(routing=Routing(allowed_targets=("b",))), invocation(5.0))
    assert (await call).target == "c"
    assert len(r.providers["b"].calls) == 1


@KINDS
@virtual_time
async def test_a_hedge_takes_no_place_that_is_not_free(kind: str) -> None:
    r = rig([[1.0, *HELLO]], [[10.0, *HELLO]], limits=Limits(max_concurrency=1), hedging=at_once())
    only_b = asyncio.create_task(r.router.chat(ask(routing=Routing(allowed_targets=("b",))), invocation()))
    await asyncio.sleep(0)
    if kind == "unary":
        trail = await ended_quietly(r)
    else:
        trail = (await collect(r.router.stream(ask(), invocation())))[-1].trail  # type: ignore[union-attr]
    assert tried(trail) == [("a", "ok", "")]
    assert r.upstreams["b"].limiter.queued == 0
    await only_b


@virtual_time
async def test_a_place_that_was_taken_in_the_same_step_is_not_waited_for() -> None:
    r = rig([LATE], [[10.0, *HELLO]], limits=Limits(max_concurrency=2), hedging=at_once())
    calls = [asyncio.create_task(ended_quietly(r)) for _ in range(2)]
    await asyncio.sleep(0.5)
    r.upstreams["b"].limiter.max_concurrency = 1
    trails = [await call for call in calls]
    assert [t.target for t in trails] == ["a", "a"]
    assert sorted(tried(t)[0] for t in trails) == [
        ("b", "cancelled", "hedge_lost"),
        ("b", "saturated", "queue_timeout"),
    ]
    assert min(a.duration for a in r.recorder.attempts) == 0.0
    assert r.idle


@KINDS
@virtual_time
async def test_a_caller_who_wants_no_failover_gets_no_hedge(kind: str) -> None:
    r = rig([LATE], [HELLO], hedging=at_once())
    assert (await ended(r, kind, ask(routing=Routing(allow_failover=False)))).target == "a"
    assert (await ended(r, kind, ask(routing=Routing(allowed_targets=("a",))))).target == "a"
    assert not r.providers["b"].calls


@virtual_time
async def test_the_least_bad_of_the_unwell_is_tried_alone() -> None:
    r = rig([[fails(Outcome.TIMEOUT)]], [[fails(Outcome.TIMEOUT)]], hedging=at_once())
    await broken(r, "a")
    await broken(r, "b")
    r.providers["a"].scripts = [LATE]
    asked = len(r.providers["b"].calls)
    assert (await ended(r, "unary")).target == "a"
    assert len(r.providers["b"].calls) == asked


@virtual_time
async def test_after_the_first_word_nobody_runs_beside_it() -> None:
    slow_start: Script = [5.0, *HELLO]
    r = rig([[said("x"), fails(Outcome.MALFORMED)]], [slow_start], [HELLO], hedging=at_once())
    events = await collect(r.router.stream(ask(routing=RESTART), invocation()))
    assert [e.trail.target for e in events if isinstance(e, Reset)] == ["b"]
    assert not r.providers["c"].calls
    r = rig([[said("x"), 5.0, *HELLO]], [HELLO], hedging=at_once())
    await collect(r.router.stream(ask(), invocation()))
    assert not r.providers["b"].calls


RESTART = Routing(stream_recovery=StreamRecovery.RESTART)


@virtual_time
async def test_a_winner_that_breaks_is_recovered_like_any_other() -> None:
    r = rig([LATE], [[said("x"), 1.0, fails(Outcome.MALFORMED)]], [HELLO], hedging=at_once())
    events = await collect(r.router.stream(ask(routing=RESTART), invocation()))
    assert isinstance(events[-1], Finished)
    assert tried(events[-1].trail) == [
        ("a", "cancelled", "hedge_lost"),
        ("b", "malformed", "scripted"),
        ("c", "ok", ""),
    ]
    assert failovers(r) == [("b", "c", "malformed")]
    assert r.idle


@virtual_time
async def test_an_event_without_content_is_no_answer() -> None:
    r = rig([[0.1, (Report(model="a-1"),), 5.0, *HELLO]], [[0.2, (Report(),), *HELLO]], hedging=at_once())
    trail = await ended(r, "stream")
    assert (trail.target, trail.reported_model) == ("b", "")


@virtual_time
async def test_an_empty_answer_is_an_answer() -> None:
    r = rig([LATE], [[0.2, done(Usage(3, 0))]], hedging=at_once())
    events = await collect(r.router.stream(ask(), invocation()))
    assert [type(e) for e in events] == [Started, Finished]
    assert events[-1].trail.target == "b"  # type: ignore[union-attr]
    assert r.idle


@KINDS
@virtual_time
async def test_a_hedge_that_would_have_no_time_is_not_sent(kind: str) -> None:
    for patience, asked in ((0.05, 1), (0.085, 0)):
        r = rig([[1.0, *HELLO]], [[1.0, *HELLO]], hedging=Hedging(patience, 1.0))
        with pytest.raises(RouterError) as caught:
            await ended(r, kind, seconds=0.19)
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        assert len(r.providers["b"].calls) == asked, "an attempt needs 100 ms"
        assert r.idle


@KINDS
@virtual_time
async def test_the_losers_tokens_are_counted_and_priced(kind: str) -> None:
    priced = {"a": TargetSettings("a", "m", ALL, cost=lambda u: 10 * u.input_tokens)}
    r = rig([LATE], [SOON], hedging=at_once(), overrides=priced)
    trail = await ended(r, kind, ask("12345678"))
    assert trail.attempts[0].usage == Usage(2, 0, estimated=True, cost_nano_usd=20)
    assert r.recorder.calls[0].usage == Usage(3, 2), "the answer's"
    assert [a.usage is not None for a in r.recorder.calls[0].attempts] == [True, True]


@virtual_time
async def test_a_hedge_waits_for_what_is_usual_of_its_target_once_that_is_known() -> None:
    r = rig([[0.4, *HELLO]], [[0.1, *HELLO]], hedging=Hedging(Percentile.P95, 1.0))
    for _ in range(19):
        await ended(r, "stream")
    r.providers["a"].scripts = [LATE]
    assert (await ended(r, "stream")).target == "a", "nineteen are too few"
    r.providers["a"].scripts = [[0.4, *HELLO]]
    for _ in range(40):
        await ended(r, "stream")
    r.providers["a"].scripts = [LATE]
    began = asyncio.get_running_loop().time()
    assert (await ended(r, "stream")).target == "b"
    assert r.providers["b"].times[-1] == pytest.approx(began + 0.4)
    assert (await ended(r, "unary")).target == "a", "whole answers have times of their own"


@virtual_time
async def test_what_was_cut_short_counts_as_slow() -> None:
    """Else the percentile would creep down: the slowest would never be in it."""
    r = rig([[0.4, *HELLO]], [[0.1, *HELLO]], hedging=Hedging(Percentile.P50, 1.0))
    for n in range(400):
        r.providers["a"].scripts = [[0.4 if n % 10 else 2.0, *HELLO]]
        await ended(r, "stream")
    known = r.targets["a"].answer_times[Operation.STREAM]
    assert known.quantile(0.5) == pytest.approx(0.4)
    assert known.quantile(0.95) == pytest.approx(0.5), "after 0.4 s the hedge was sent, which took 0.1 s"
    assert r.targets["b"].answer_times[Operation.STREAM].quantile(0.5) is None, "a hedge tells of the chosen"


@virtual_time
async def test_an_outage_is_not_paid_twice() -> None:
    r = rig([[0.4, *HELLO]], [SOON], hedging=Hedging(0.5, 0.05), timeouts=Timeouts(first_token=3.0))
    for _ in range(100):
        await ended(r, "stream")
    r.providers["a"].scripts = [[2.0, *HELLO]]
    for _ in range(100):
        await ended(r, "stream")
    assert len(r.providers["b"].calls) == 5 + 5


@virtual_time
async def test_a_probe_that_loses_is_given_back() -> None:
    breaker = BreakerSettings(failure_threshold=1, success_threshold=1)
    r = rig([[fails(Outcome.TIMEOUT)], LATE], [HELLO], breaker=breaker, hedging=at_once())
    await ended(r, "unary")
    await asyncio.sleep(10.0)
    assert (await ended(r, "unary")).target == "b"
    assert r.state("a") == "half_open"
    r.providers["a"].scripts = [HELLO]
    assert (await ended(r, "unary")).target == "a"
    assert r.state("a") == "closed"


@virtual_time
async def test_embeddings_are_hedged_within_their_space_only() -> None:
    def vectors(call: UpstreamEmbed) -> Embeddings:
        return Embeddings(Vectors(1, b"\0\0\0\0" * len(call.request.inputs)), Usage(1, 0))

    spaces = {"a": "one", "b": "two", "c": "one"}
    overrides = {n: TargetSettings(n, n, ALL, embedding_space=s) for n, s in spaces.items()}
    r = rig([[5.0]], [[0.1]], [[0.1]], overrides=overrides, hedging=at_once())
    for provider in r.providers.values():
        provider.embedder = vectors
    result = await r.router.embed(EmbedRequest("r", ("x", "y")), invocation())
    assert (result.trail.target, result.vectors.rows) == ("c", 2)
    assert tried(result.trail) == [("a", "cancelled", "hedge_lost"), ("c", "ok", "")]
    assert not r.providers["b"].embeds
    assert r.idle


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 0.55, 0.7, 0.75, 5.0])
@KINDS
@virtual_time
async def test_a_caller_who_goes_away_leaves_nothing_behind(kind: str, at: float) -> None:
    r = rig([[0.7, *HELLO]], [[0.2, *HELLO]], hedging=at_once())
    call = asyncio.create_task(ended(r, kind))
    await asyncio.sleep(at)
    call.cancel()
    await asyncio.wait({call})
    assert r.idle
    assert len(r.recorder.calls) == (1 if at or r.recorder.starts else 0)
    assert all(r.state(name) == "closed" for name in "ab")
    if at == 0.55:
        assert [a.error_reason for a in r.recorder.attempts] == ["cancelled", "cancelled"]


@virtual_time
async def test_the_numbers_of_attempts_have_no_gap() -> None:
    r = rig([[0.6, fails(Outcome.MALFORMED)]], [[2.0, fails(Outcome.MALFORMED)]], [HELLO], hedging=at_once())
    await ended(r, "stream")
    assert [a.start.number for a in r.recorder.attempts] == [1, 2, 3]
