from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from router_server.core.deadline import Timeouts
from router_server.core.errors import Outcome, Phase, Reason, RouterError
from router_server.core.limiter import Limits
from router_server.core.provider import Capability
from router_server.core.results import Finished, Heartbeat, Reset, Started, StreamEvent
from router_server.core.router import RouterSettings
from router_server.core.target import TargetSettings
from router_server.core.types import (
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Generation,
    ReasoningEffort,
    Report,
    Routing,
    StreamRecovery,
    Tool,
    Usage,
)
from tests.clock import virtual_time
from tests.core.scripted import ALL, Act, Rig, ask, collect, done, fails, invocation, rig, said

HELLO: Sequence[Act] = [said("Hel"), 0.1, said("lo"), done(Usage(3, 2))]
CUT: Sequence[Act] = [said("The answer"), 0.1, said(" is"), 0.1, fails(Outcome.UNAVAILABLE, "reset")]
RESTART = Routing(stream_recovery=StreamRecovery.RESTART)
RESUME = Routing(stream_recovery=StreamRecovery.RESUME)


def text_of(events: Sequence[StreamEvent]) -> str:
    text = ""
    for event in events:
        if isinstance(event, Reset) and not event.resumed:
            text = ""
        elif isinstance(event, Delta):
            text += event.text
    return text


async def drain(r: Rig, request: object = None, seconds: float | None = None) -> list[StreamEvent]:
    events = await collect(r.router.stream(request or ask(), invocation(seconds)))  # type: ignore[arg-type]
    assert r.idle
    return events


async def broken(
    r: Rig, request: object = None, seconds: float | None = None
) -> tuple[list[StreamEvent], RouterError]:
    events: list[StreamEvent] = []
    try:
        async for event in r.router.stream(request or ask(), invocation(seconds)):  # type: ignore[arg-type]
            events.append(event)  # noqa: PERF401 - what came before the error counts
    except RouterError as error:
        assert r.idle
        return events, error
    pytest.fail("the stream did not break")


@virtual_time
async def test_started_comes_with_the_first_delta_and_finished_last() -> None:
    r = rig([[3.0, (Report(model="gpt-x"),), *HELLO]])
    events = await drain(r)
    assert [type(e) for e in events] == [Started, Delta, Delta, Finished]
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert started.trail.attempts[-1].outcome is None
    assert started.trail.attempts[-1].time_to_first_token == pytest.approx(3.0)
    assert finished.finish_reason is FinishReason.STOP
    assert finished.usage == Usage(3, 2)
    assert finished.trail.reported_model == "gpt-x"
    assert finished.trail.attempts[-1].outcome is Outcome.OK
    record = r.recorder.calls[0]
    assert record.time_to_first_token == pytest.approx(3.0)
    assert record.usage == Usage(3, 2)


@pytest.mark.parametrize("failure", [fails(Outcome.UNAVAILABLE), fails(Outcome.RATE_LIMITED), 20.0])
@virtual_time
async def test_before_the_first_delta_failover_is_invisible(failure: Act) -> None:
    r = rig([[failure, *HELLO]], [HELLO])
    events = await drain(r)
    assert [type(e) for e in events] == [Started, Delta, Delta, Finished]
    assert isinstance(events[0], Started)
    assert events[0].trail.target == "b"
    assert events[0].trail.fallback
    assert len(events[0].trail.attempts) >= 2


@virtual_time
async def test_an_event_without_content_stops_the_first_token_timer_but_commits_nothing() -> None:
    r = rig([[10.0, (Report(),), 10.0, (), 10.0, *HELLO]], timeouts=Timeouts(first_token=12.0, idle=11.0))
    assert text_of(await drain(r)) == "Hello"
    silent = rig([[10.0, (Report(),), fails(Outcome.UNAVAILABLE)]], [HELLO], retries=0)
    events = await drain(silent)
    assert isinstance(events[0], Started)
    assert events[0].trail.target == "b"


@virtual_time
async def test_reasoning_gets_the_longer_first_token_timer() -> None:
    r = rig([[40.0, *HELLO]])
    request = ask(generation=Generation(reasoning_effort=ReasoningEffort.HIGH))
    assert text_of(await drain(r, request)) == "Hello"
    _events, error = await broken(r)
    assert error.reason is Reason.ALL_TARGETS_FAILED


@virtual_time
async def test_a_wished_first_token_timeout_is_neutral() -> None:
    r = rig([[3.0, *HELLO]], [HELLO])
    for _ in range(8):
        await drain(r, ask(routing=Routing(first_token_timeout=1.0)))
    assert r.state("a") == "closed"
    assert len(r.providers["a"].calls) == 8


@virtual_time
async def test_no_recovery_ends_with_interrupted_and_partial_usage() -> None:
    r = rig([CUT], [HELLO])
    events, error = await broken(r)
    assert error.reason is Reason.STREAM_INTERRUPTED
    assert text_of(events) == "The answer is"
    assert not any(isinstance(e, Finished) for e in events)
    assert error.usage == Usage(2, 4, estimated=True)
    assert not r.providers["b"].calls
    assert error.attempts[0].error_reason == "reset"


@virtual_time
async def test_restart_discards_and_starts_over() -> None:
    r = rig([CUT], [HELLO])
    events = await drain(r, ask(routing=RESTART))
    resets = [e for e in events if isinstance(e, Reset)]
    assert [(e.resumed, e.reason, e.trail.target) for e in resets] == [(False, "unavailable", "b")]
    assert text_of(events) == "Hello"
    assert events.index(resets[0]) < len(events) - 2
    assert r.providers["b"].calls[0].continuation is None


@virtual_time
async def test_the_route_decides_where_the_call_says_nothing() -> None:
    r = rig([CUT], [HELLO], recovery=StreamRecovery.RESTART)
    assert text_of(await drain(r)) == "Hello"
    r = rig([CUT], [HELLO], recovery=StreamRecovery.RESTART)
    _, error = await broken(r, ask(routing=Routing(stream_recovery=StreamRecovery.NONE)))
    assert error.reason is Reason.STREAM_INTERRUPTED


@virtual_time
async def test_three_targets_deep() -> None:
    r = rig([CUT], [[said("Other"), fails(Outcome.MALFORMED)]], [HELLO])
    events = await drain(r, ask(routing=RESTART))
    assert [e.trail.target for e in events if isinstance(e, Reset)] == ["b", "c"]
    assert text_of(events) == "Hello"
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert [a.outcome for a in finished.trail.attempts] == [
        Outcome.UNAVAILABLE,
        Outcome.MALFORMED,
        Outcome.OK,
    ]


@pytest.mark.parametrize(
    ("recovery", "advice"),
    [
        (StreamRecovery.NONE, "Ask again, or for stream recovery."),
        (StreamRecovery.RESTART, "No target could begin anew: forget what was delivered. Ask again later."),
        (
            StreamRecovery.RESUME,
            "No target could go on: what was delivered is a part. Ask again later.",
        ),
    ],
)
@virtual_time
async def test_a_broken_stream_advises_what_was_not_asked_for_already(
    recovery: StreamRecovery, advice: str
) -> None:
    r = rig([[said("x"), fails(Outcome.MALFORMED)]])
    _events, error = await broken(r, ask(routing=Routing(stream_recovery=recovery)))
    assert advice in error.message
    assert ("stream recovery" in error.message) is (recovery is StreamRecovery.NONE)


@virtual_time
async def test_when_nobody_is_left_a_broken_stream_is_interrupted_even_with_restart() -> None:
    r = rig([[said("x"), fails(Outcome.MALFORMED)]])
    events, error = await broken(r, ask(routing=RESTART))
    assert error.reason is Reason.STREAM_INTERRUPTED
    assert not any(isinstance(e, Reset) for e in events)


@virtual_time
async def test_the_only_target_is_asked_again_after_a_cut() -> None:
    r = rig([CUT, HELLO])
    assert text_of(await drain(r, ask(routing=RESTART))) == "Hello"


@virtual_time
async def test_a_stall_is_a_timeout_and_restarts() -> None:
    r = rig([[said("slow"), 30.0, *HELLO]], [HELLO])
    events = await drain(r, ask(routing=RESTART))
    assert text_of(events) == "Hello"
    assert isinstance(events[-1], Finished)
    assert events[-1].trail.attempts[0].error_reason == "idle_timeout"


@virtual_time
async def test_resume_continues_the_text() -> None:
    r = rig([[said("The answer is"), fails(Outcome.UNAVAILABLE)]], [[said(" 42"), done(Usage(9, 1))]])
    request = ask(routing=RESUME, generation=Generation(max_output_tokens=100))
    events = await drain(r, request)
    resets = [e for e in events if isinstance(e, Reset)]
    assert [e.resumed for e in resets] == [True]
    assert text_of(events) == "The answer is 42"
    assert {e.part_index for e in events if isinstance(e, Delta)} == {0}
    call = r.providers["b"].calls[0]
    assert call.continuation == "The answer is"
    assert call.request.generation.max_output_tokens == 100 - 4
    assert isinstance(events[-1], Finished)
    assert events[-1].usage == Usage(2 + 9, 4 + 1, estimated=True)


@pytest.mark.parametrize(
    "request_more",
    [
        {"tools": (Tool("f"),)},
        {"generation": Generation(stop_sequences=("x",))},
        {"generation": Generation(reasoning_effort=ReasoningEffort.LOW)},
    ],
)
@virtual_time
async def test_what_cannot_be_continued_starts_over(request_more: dict[str, Any]) -> None:
    r = rig([[said("The answer is"), fails(Outcome.UNAVAILABLE)]], [HELLO])
    events = await drain(r, ask(routing=RESUME, **request_more))
    assert [e.resumed for e in events if isinstance(e, Reset)] == [False]
    assert text_of(events) == "Hello"


@pytest.mark.parametrize(
    "first",
    [
        [said("ends in a space ")],
        [said("thinking", kind=DeltaKind.REASONING), said("text", part=1)],
        [said("no", kind=DeltaKind.REFUSAL)],
    ],
)
@virtual_time
async def test_text_that_cannot_be_continued_starts_over(first: list[Act]) -> None:
    r = rig([[*first, fails(Outcome.UNAVAILABLE)]], [HELLO])
    events = await drain(r, ask(routing=RESUME))
    assert [e.resumed for e in events if isinstance(e, Reset)] == [False]


@virtual_time
async def test_a_target_that_cannot_continue_starts_over() -> None:
    overrides = {"b": TargetSettings("b", "m", ALL - {Capability.CONTINUATION})}
    r = rig([[said("The"), fails(Outcome.UNAVAILABLE)]], [HELLO], overrides=overrides)
    events = await drain(r, ask(routing=RESUME))
    assert [e.resumed for e in events if isinstance(e, Reset)] == [False]
    assert r.providers["b"].calls[0].continuation is None


@virtual_time
async def test_a_refused_continuation_starts_over_on_the_same_target_and_is_neutral() -> None:
    r = rig(
        [[said("The"), fails(Outcome.UNAVAILABLE)]],
        [[fails(Outcome.MODEL_MISSING, status=404)], HELLO],
    )
    events = await drain(r, ask(routing=RESUME))
    assert [e.resumed for e in events if isinstance(e, Reset)] == [False]
    assert text_of(events) == "Hello"
    assert [c.continuation for c in r.providers["b"].calls] == ["The", None]
    assert r.targets["b"].serving


@virtual_time
async def test_a_content_filter_after_the_first_delta_is_not_asked_again() -> None:
    r = rig([[said("x"), fails(Outcome.CONTENT_FILTER)]], [HELLO])
    _, error = await broken(r, ask(routing=RESTART))
    assert error.reason is Reason.CONTENT_FILTERED
    assert not r.providers["b"].calls


@virtual_time
async def test_the_deadline_after_the_first_delta() -> None:
    r = rig([[said("x"), 5.0, said("y"), 5.0, said("z"), 5.0, done()]], [HELLO])
    events, error = await broken(r, ask(routing=RESTART), seconds=12.0)
    assert error.reason is Reason.DEADLINE_EXCEEDED
    assert error.phase is Phase.STREAM
    assert text_of(events) == "xyz"
    assert r.state("a") == "closed"
    assert asyncio.get_running_loop().time() == pytest.approx(11.95)


@virtual_time
async def test_a_stream_without_a_finish_is_malformed() -> None:
    r = rig([[said("half")]], [HELLO])
    _, error = await broken(r)
    assert error.attempts[0].outcome is Outcome.MALFORMED
    assert error.attempts[0].error_reason == "no_finish_reason"


@virtual_time
async def test_an_empty_answer_is_an_answer() -> None:
    events = await drain(rig([[done(Usage(3, 0))]]))
    assert [type(e) for e in events] == [Started, Finished]


@virtual_time
async def test_what_is_buffered_leaves_as_one_delta() -> None:
    r = rig([[said("a"), said("b"), said("c"), 1.0, said("d"), done()]])
    events = await drain(r)
    assert [e.text for e in events if isinstance(e, Delta)] == ["abc", "d"]


@virtual_time
async def test_a_coalesce_window_waits_for_more_but_not_past_the_end() -> None:
    r = rig([[said("a"), 0.1, said("b"), 0.1, said("c"), 0.1, said("d"), 0.1, done()]])
    events = await drain(r, ask(routing=Routing(coalesce_window=0.25)))
    assert [e.text for e in events if isinstance(e, Delta)] == ["abc", "d"]
    assert asyncio.get_running_loop().time() == pytest.approx(0.4)


@virtual_time
async def test_heartbeats_only_after_the_start_and_only_in_silence() -> None:
    r = rig([[7.0, said("a"), 2.5, said("b"), done()]])
    events = await drain(r, ask(routing=Routing(heartbeat_interval=1.0)))
    assert [type(e) for e in events] == [Started, Delta, Heartbeat, Heartbeat, Delta, Finished]


@virtual_time
async def test_a_slow_reader_stops_the_upstream_at_the_limit_and_frees_the_permit_at_its_end() -> None:
    chunk = "x" * 16_384
    r = rig([[*[said(chunk)] * 60, done()]])
    stream = r.router.stream(ask(), invocation())
    await anext(stream)
    for _ in range(10):
        await asyncio.sleep(1)
    assert r.upstreams["a"].limiter.inflight == 1, "960 KiB do not fit"
    taken = [e async for e in stream]
    assert len(text_of(taken)) == 60 * 16_384
    fits = rig([[*[said(chunk)] * 10, done()]])
    stream = fits.router.stream(ask(), invocation())
    await anext(stream)
    await asyncio.sleep(1)
    assert fits.idle, "160 KiB fit: the provider is done, and so is its permit"
    await stream.aclose()


@virtual_time
async def test_a_reader_that_takes_nothing_is_given_up() -> None:
    chunk = "x" * 200_000
    r = rig([[*[said(chunk)] * 10, done()]], settings=RouterSettings(reader_stall=60.0))
    stream = r.router.stream(ask(), invocation())
    await anext(stream)
    await asyncio.sleep(61)
    assert r.idle
    with pytest.raises(RouterError) as caught:
        await collect(stream)
    assert caught.value.reason is Reason.STREAM_INTERRUPTED
    assert "Read the stream as it arrives" in caught.value.message
    assert r.state("a") == "closed"


@virtual_time
async def test_a_slow_reader_is_not_a_slow_upstream() -> None:
    chunk = "x" * 300_000
    r = rig([[said(chunk), said(chunk), said("end"), done()]], timeouts=Timeouts(idle=1.0))
    stream = r.router.stream(ask(), invocation())
    total = 0
    async for event in stream:
        total += len(event.text) if isinstance(event, Delta) else 0
        await asyncio.sleep(5)
    assert total == 600_003


@pytest.mark.parametrize("wait", [0.0, 0.5, 1.5, 2.5])
@virtual_time
async def test_closing_the_stream_frees_everything_at_once(wait: float) -> None:
    r = rig([[1.0, said("a"), 1.0, said("b"), 1.0, done()]], limits=Limits(max_concurrency=1))

    async def read() -> None:
        async for _event in r.router.stream(ask(), invocation()):
            pass

    reader = asyncio.create_task(read())
    waiter = asyncio.create_task(read())
    await asyncio.sleep(wait)
    reader.cancel()
    waiter.cancel()
    await asyncio.wait({reader, waiter})
    assert reader.cancelled()
    assert r.idle
    assert [c.cancelled for c in r.recorder.calls] == [True] * len(r.recorder.calls)
    if wait > 1:
        assert r.recorder.attempts[0].usage is not None
        assert r.recorder.attempts[0].usage.estimated


@virtual_time
async def test_the_old_permit_is_released_before_the_next_target_is_asked() -> None:
    r = rig([CUT], [[5.0, *HELLO]])
    stream = r.router.stream(ask(routing=RESTART), invocation())
    a, b = (r.upstreams[name].limiter for name in "ab")
    seen = [(a.inflight, b.inflight) async for event in stream if isinstance(event, Reset)]
    assert seen == [(0, 1)]


@virtual_time
async def test_streaming_success_closes_the_breaker_only_at_the_finish() -> None:
    r = rig([[fails(Outcome.MALFORMED)]], retries=0)
    for _ in range(5):
        await broken(r)
    await asyncio.sleep(10.0)
    r.providers["a"].scripts = [[said("x"), 1.0, done()]]
    stream = r.router.stream(ask(), invocation())
    await anext(stream)
    assert r.state("a") == "half_open"
    await collect(stream)
    await drain(r)
    assert r.state("a") == "closed"
    assert [b[1:] for b in r.recorder.breakers] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


@virtual_time
async def test_a_bug_reaches_whoever_reads() -> None:
    r = rig([[said("x"), ValueError("secret")]])
    with pytest.raises(ValueError, match="secret"):
        await collect(r.router.stream(ask(), invocation()))
    assert r.idle


@virtual_time
async def test_answers_are_kept_only_where_contents_are_recorded() -> None:
    for keep in (False, True):
        r = rig([HELLO], settings=RouterSettings(keep_answers=keep))
        await drain(r)
        assert (r.recorder.attempts[0].answer is not None) is keep


@pytest.mark.parametrize("end", [fails(Outcome.UNAVAILABLE, "reset"), 100.0])
@virtual_time
async def test_what_breaks_after_the_finish_reason_takes_nothing_from_the_answer(end: Act) -> None:
    r = rig([[said("Hello"), (Finish(FinishReason.STOP),), end]], [HELLO])
    events = await drain(r, ask(routing=RESTART))
    assert text_of(events) == "Hello"
    assert isinstance(events[-1], Finished)
    assert (events[-1].trail.target, events[-1].usage.estimated) == ("a", True)
    assert asyncio.get_running_loop().time() <= 2.0


@virtual_time
async def test_a_continuation_stays_within_the_targets_cap() -> None:
    overrides = {"b": TargetSettings("b", "m", ALL, max_output_tokens=50)}
    r = rig([[said("The answer is"), fails(Outcome.UNAVAILABLE)]], [HELLO], overrides=overrides)
    await drain(r, ask(routing=RESUME))
    assert r.providers["b"].calls[0].request.generation.max_output_tokens == 50 - 4


@virtual_time
async def test_a_provider_that_cancels_a_stream_by_itself_has_failed() -> None:
    r = rig([[asyncio.CancelledError()]], [HELLO], retries=0)
    events = await drain(r)
    assert text_of(events) == "Hello"
