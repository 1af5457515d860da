"""gRPC's own retries under the client's service config: they obey pushback, and stop at the first message."""

from __future__ import annotations

import grpc
import pytest

from modelrouter import AllTargetsFailed, ModelNotFound, Saturated, ServerUnreachable, StreamInterrupted
from tests.client.scripted import Fail, ScriptedRouter, answer, delta, rich, spoken, started
from tests.client.shells import Shell, opened

FAILED_FOR_NOW = rich(grpc.StatusCode.UNAVAILABLE, "ALL_TARGETS_FAILED", "all failed", pushback_ms=1)
FAILED_FOR_LONG = rich(grpc.StatusCode.UNAVAILABLE, "ALL_TARGETS_FAILED", "all failed", pushback_ms=-1)
FULL_FOR_NOW = rich(grpc.StatusCode.RESOURCE_EXHAUSTED, "ROUTER_SATURATED", "full", pushback_ms=1)
FULL_FOR_LONG = rich(grpc.StatusCode.RESOURCE_EXHAUSTED, "ROUTER_SATURATED", "full", pushback_ms=-1)


@pytest.mark.parametrize(
    "failure",
    [
        FAILED_FOR_NOW,
        FULL_FOR_NOW,
        Fail(grpc.StatusCode.UNAVAILABLE),
        Fail(grpc.StatusCode.CANCELLED),  # which calls get in the moment in which a server stops
    ],
)
async def test_a_passing_failure_is_not_seen(router: ScriptedRouter, shell: Shell, failure: Fail) -> None:
    router.play([failure], [failure], [answer("Paris.")])

    assert (await shell.chat("?")).text == "Paris."
    assert len(router.calls) == 3


async def test_three_attempts_are_made_and_no_more(router: ScriptedRouter, shell: Shell) -> None:
    router.play([FAILED_FOR_NOW])

    with pytest.raises(AllTargetsFailed):
        await shell.chat("?")

    assert len(router.calls) == 3


@pytest.mark.parametrize(
    ("failure", "error"), [(FAILED_FOR_LONG, AllTargetsFailed), (FULL_FOR_LONG, Saturated)]
)
async def test_a_pushback_of_minus_one_forbids_retries(
    router: ScriptedRouter, shell: Shell, failure: Fail, error: type[Exception]
) -> None:
    router.play([failure], [answer("Paris.")])

    with pytest.raises(error):
        await shell.chat("?")

    assert len(router.calls) == 1


async def test_a_pushback_beyond_the_deadline_ends_in_time(router: ScriptedRouter, shell: Shell) -> None:
    in_a_minute = rich(grpc.StatusCode.UNAVAILABLE, "ALL_TARGETS_FAILED", "all failed", pushback_ms=60_000)
    router.play([in_a_minute], [answer("Paris.")])

    with pytest.raises(Exception, match=r"."):
        await shell.chat("?", timeout=0.2)

    assert len(router.calls) == 1, "the pushback was waited for, not gRPC's own backoff"


async def test_other_codes_are_not_retried(router: ScriptedRouter, shell: Shell) -> None:
    router.play([rich(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no route")])

    with pytest.raises(ModelNotFound):
        await shell.chat("?")

    assert len(router.calls) == 1


async def test_a_stream_is_retried_before_its_first_message(router: ScriptedRouter, shell: Shell) -> None:
    router.play([FAILED_FOR_NOW], spoken("Paris."))
    pieces: list[str] = []

    await shell.texts(shell.stream("?"), pieces)

    assert pieces == ["Paris."]
    assert len(router.calls) == 2


async def test_a_stream_is_not_retried_after_its_first_message(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("Par"), Fail(grpc.StatusCode.UNAVAILABLE, "reset")], spoken("Paris."))

    with pytest.raises(StreamInterrupted) as caught:
        await shell.texts(shell.stream("?"), [])

    assert caught.value.partial == "Par"
    assert len(router.calls) == 1


async def test_a_large_request_is_retried_too(router: ScriptedRouter, shell: Shell) -> None:
    router.play([FAILED_FOR_NOW], [answer("Paris.")])

    assert (await shell.chat("x" * 1024 * 1024)).text == "Paris."


async def test_retries_can_be_switched_off(router: ScriptedRouter, kind: str) -> None:
    router.play([FAILED_FOR_NOW], [answer("Paris.")])

    async with opened(kind, router.target, max_attempts=1) as shell:
        with pytest.raises(AllTargetsFailed):
            await shell.chat("?")

    assert len(router.calls) == 1


async def test_a_wrong_target_fails_fast_and_says_what_to_do(kind: str) -> None:
    async with opened(kind, "127.0.0.1:1") as shell:
        with pytest.raises(ServerUnreachable) as caught:
            await shell.chat("?", timeout=20)

    text = str(caught.value)
    assert text.startswith("no model router can be reached at 127.0.0.1:1: ")
    assert "refused" in text
    assert "router-server serve" in text
