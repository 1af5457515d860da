"""Streams over a real channel: the three ways of reading, resets, breaks, cancellation; for both clients."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from modelrouter import (
    AllTargetsFailed,
    AsyncChatStream,
    Cancelled,
    DeadlineExceeded,
    MalformedAnswer,
    ServerUnreachable,
    StreamInterrupted,
    user,
)
from modelrouter.v1 import chat_pb2, common_pb2
from tests.client.scripted import (
    OTHER_ROUTE,
    ROUTE,
    USAGE,
    Hang,
    ScriptedRouter,
    delta,
    finished,
    heartbeat,
    reset,
    rich,
    spoken,
    started,
)
from tests.client.shells import Asyncio, Shell, opened

NONE = common_pb2.STREAM_RECOVERY_NONE
RESTART = common_pb2.STREAM_RECOVERY_RESTART
RESUME = common_pb2.STREAM_RECOVERY_RESUME


def recovery(router: ScriptedRouter) -> common_pb2.StreamRecovery:
    """Return what the last call asked of the server."""
    asked: common_pb2.StreamRecovery = router.calls[-1].request.routing.stream_recovery
    return asked


async def test_iteration_gives_the_pieces_of_text(router: ScriptedRouter, shell: Shell) -> None:
    router.play(
        [
            started(),
            heartbeat(),
            delta("Par"),
            delta("is"),
            heartbeat(),
            delta(reasoning="hm", index=1),
            finished(),
        ]
    )
    stream, pieces = shell.stream("?"), list[str]()

    await shell.texts(stream, pieces)

    assert pieces == ["Par", "is"]
    assert stream.answer.text == "Paris"
    assert stream.answer.reasoning == "hm"
    assert stream.answer.usage == USAGE


async def test_events_come_as_they_were_sent(router: ScriptedRouter, shell: Shell) -> None:
    script = [started(), delta("a"), reset(resumed=False), heartbeat(), delta("b"), finished(OTHER_ROUTE)]
    router.play(script)
    stream, events = shell.stream("?"), list[chat_pb2.StreamChatResponse]()

    await shell.events(stream, events)

    assert events == script
    assert stream.answer.text == "b"


async def test_result_is_the_whole_answer(router: ScriptedRouter, shell: Shell) -> None:
    router.play(spoken("Par", "is"))

    answer = await shell.result(shell.stream("?"))

    assert (answer.text, answer.usage, answer.route) == ("Paris", USAGE, ROUTE)
    assert (answer.raw.id, answer.raw.model) == ("call-1", "chat")


async def test_nothing_is_sent_before_the_stream_is_read(router: ScriptedRouter, shell: Shell) -> None:
    router.play(spoken("a"))

    unread, read = shell.stream("first"), shell.stream("second")
    await shell.result(read)

    assert [call.request.messages for call in router.calls] == [[user("second")]]
    await shell.result(unread)


async def test_each_way_of_reading_asks_for_what_it_can_stand(router: ScriptedRouter, shell: Shell) -> None:
    router.play(spoken("a"))

    await shell.texts(shell.stream("?"), [])
    assert recovery(router) == NONE
    await shell.texts(shell.stream("?", on_reset=lambda _: None), [])
    assert recovery(router) == RESTART
    await shell.events(shell.stream("?"), [])
    assert recovery(router) == RESTART
    await shell.result(shell.stream("?"))
    assert recovery(router) == RESTART
    await shell.texts(shell.stream("?", stream_recovery="resume"), [])
    assert recovery(router) == RESUME
    await shell.result(shell.stream("?", stream_recovery="none"))
    assert recovery(router) == NONE


async def test_result_forgets_what_a_restart_takes_back(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("Lond"), reset(resumed=False), delta("Paris"), finished(OTHER_ROUTE)])

    answer = await shell.result(shell.stream("?"))

    assert answer.text == "Paris"
    assert answer.route == OTHER_ROUTE


async def test_result_keeps_what_a_resume_continues(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("Par"), reset(resumed=True), delta("is"), finished(OTHER_ROUTE)])

    assert (await shell.result(shell.stream("?"))).text == "Paris"


async def test_on_reset_is_told_when_to_forget_and_only_then(router: ScriptedRouter, shell: Shell) -> None:
    router.play(
        [
            started(),
            delta("Lo"),
            reset(resumed=True),
            delta("nd"),
            reset(resumed=False),
            delta("Paris"),
            finished(),
        ]
    )
    resets: list[chat_pb2.StreamReset] = []
    stream, pieces = shell.stream("?", on_reset=resets.append), list[str]()

    await shell.texts(stream, pieces)

    assert resets == [reset(resumed=False).reset]
    assert pieces == ["Lo", "nd", "Paris"]
    assert stream.answer.text == "Paris"


async def test_a_resumed_text_goes_on_without_on_reset(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("Par"), reset(resumed=True), delta("is"), finished()])
    pieces: list[str] = []

    await shell.texts(shell.stream("?", stream_recovery="resume"), pieces)

    assert pieces == ["Par", "is"]


async def test_a_restart_that_nobody_can_be_told_of_interrupts_and_cancels(
    router: ScriptedRouter, shell: Shell
) -> None:
    router.play([started(), delta("Lond"), reset(resumed=False), Hang()])

    with pytest.raises(StreamInterrupted, match="on_reset=") as caught:
        await shell.texts(shell.stream("?", stream_recovery="restart"), [])

    assert caught.value.partial == "Lond"
    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


async def test_a_broken_stream_raises_with_what_had_come(router: ScriptedRouter, shell: Shell) -> None:
    used = {"partial_input_tokens": "7", "partial_output_tokens": "2"}
    broken = rich(grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED", "the upstream went away", metadata=used)
    router.play([started(), delta("Par"), delta("i"), broken])

    with pytest.raises(StreamInterrupted, match="the upstream went away") as caught:
        await shell.texts(shell.stream("?"), [])

    assert caught.value.partial == "Pari"
    assert (caught.value.input_tokens, caught.value.output_tokens) == (7, 2)


async def test_a_deadline_within_the_answer_keeps_what_had_come(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("Par"), Hang()])

    with pytest.raises(DeadlineExceeded) as caught:
        await shell.result(shell.stream("?", timeout=0.3))

    assert caught.value.partial == "Par"
    assert "timeout=" in str(caught.value)


@pytest.mark.parametrize("way", ["texts", "events", "result"])
async def test_a_stream_without_finished_is_truncated(router: ScriptedRouter, shell: Shell, way: str) -> None:
    router.play([started(), delta("Par")])
    stream = shell.stream("?")

    with pytest.raises(StreamInterrupted, match="before the answer was complete") as caught:
        await (shell.result(stream) if way == "result" else getattr(shell, way)(stream, []))

    assert caught.value.partial == "Par"
    assert caught.value.reason == "STREAM_TRUNCATED"
    with pytest.raises(RuntimeError, match="not read to its end"):
        _ = stream.answer


@pytest.mark.parametrize("way", ["texts", "events", "result"])
async def test_a_broken_grammar_raises_and_cancels(router: ScriptedRouter, shell: Shell, way: str) -> None:
    router.play([started(), delta("a"), started(), Hang()])
    stream = shell.stream("?")

    with pytest.raises(MalformedAnswer, match="`started` came a second time"):
        await (shell.result(stream) if way == "result" else getattr(shell, way)(stream, []))

    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


async def test_a_failure_before_the_first_delta_is_that_failure(router: ScriptedRouter, shell: Shell) -> None:
    router.play([rich(grpc.StatusCode.UNAVAILABLE, "ALL_TARGETS_FAILED", "nobody is there", pushback_ms=-1)])

    with pytest.raises(AllTargetsFailed) as caught:
        await shell.texts(shell.stream("?"), [])

    assert caught.value.partial == ""


async def test_breaking_out_of_the_loop_cancels(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("a"), Hang()])

    assert await shell.first(shell.stream("?")) == "a"

    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


async def test_leaving_the_context_manager_cancels(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("a"), Hang()])

    assert await shell.leave(shell.stream("?")) == "a"

    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


async def test_cancel_reaches_the_reader_and_the_server(router: ScriptedRouter, shell: Shell) -> None:
    router.play([started(), delta("a"), Hang()])

    with pytest.raises(Cancelled):
        await shell.cancel_while_reading(shell.stream("?"))

    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


async def test_a_stream_cancelled_beforehand_gives_nothing(router: ScriptedRouter, shell: Shell) -> None:
    router.play(spoken("a"))
    stream = shell.stream("?")
    stream.cancel()

    with pytest.raises(Cancelled):
        await shell.result(stream)


@pytest.mark.parametrize("also_the_stream", [False, True])
async def test_a_cancelled_task_stays_cancelled(router: ScriptedRouter, also_the_stream: bool) -> None:
    router.play([started(), delta("a"), Hang()])
    begun = asyncio.Event()

    async def read(stream: AsyncChatStream) -> None:
        async for _ in stream:
            begun.set()

    async with opened("asyncio", router.target) as shell:
        assert isinstance(shell, Asyncio)
        stream = shell.stream("?")
        task = asyncio.create_task(read(stream))
        await begun.wait()
        if also_the_stream:
            stream.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert task.cancelled()
    assert await asyncio.to_thread(router.calls[0].over.wait, 10)


@pytest.mark.parametrize("second", ["texts", "events", "result"])
async def test_a_stream_is_read_once(router: ScriptedRouter, shell: Shell, second: str) -> None:
    router.play(spoken("a"))
    stream = shell.stream("?")
    await shell.texts(stream, [])

    with pytest.raises(RuntimeError, match=r"read once, and its text .* call stream_chat\(\) again"):
        await (shell.result(stream) if second == "result" else getattr(shell, second)(stream, []))

    assert len(router.calls) == 1


async def test_a_stream_to_nowhere_says_so(kind: str) -> None:
    async with opened(kind, "127.0.0.1:1", max_attempts=1) as shell:
        with pytest.raises(ServerUnreachable, match="make run"):
            await shell.texts(shell.stream("?"), [])
