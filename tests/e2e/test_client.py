"""The client library against the real server, in both its shells: recovery, errors, retries, vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

import modelrouter
from modelrouter import user
from modelrouter.v1 import chat_pb2
from tests.client.shells import Shell, opened
from tests.e2e.serving import Served, answer, pieces, serving, two_targets
from tests.e2e.test_embed import embeds, refuses
from tests.e2e.test_upstream_failures import refusal
from tests.upstream import SSE_HEAD, End, Steps, Upstream, event, json_reply, sse_reply

CUT: Steps = (*SSE_HEAD, event(pieces("Once ", finish=None)[0]), End.RESET)
"""A stream that breaks after its first words."""

WHOLE = sse_reply(pieces("Once ", "upon ", "a time"))


@asynccontextmanager
async def client_of(kind: str, **options: Any) -> AsyncIterator[tuple[Shell, Served, Upstream, Upstream]]:
    """A client of a real server with two upstreams."""
    async with (
        Upstream() as a,
        Upstream() as b,
        serving(two_targets(a, b)) as served,
        opened(kind, served.target, **options) as shell,
    ):
        yield shell, served, a, b


both = pytest.mark.parametrize("kind", ["blocking", "asyncio"])


@both
async def test_a_chat(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, _b):
        a.always(json_reply(answer("Paris")))
        got = await shell.chat("What is the capital of France?", temperature=0.5, max_output_tokens=9)
        assert (got.text, got.finish_reason, got.route.target) == ("Paris", "stop", "a1")
        assert (got.usage.input_tokens, got.usage.output_tokens) == (3, 2)
        sent = a.requests[0].json
        assert sent["messages"] == [{"role": "user", "content": "What is the capital of France?"}]
        assert sent["temperature"] == 0.5


@both
async def test_a_stream_read_in_three_ways(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, _b):
        a.always(WHOLE)
        texts: list[str] = []
        await shell.texts(shell.stream("?"), texts)
        assert "".join(texts) == "Once upon a time"
        events: list[chat_pb2.StreamChatResponse] = []
        await shell.events(shell.stream("?"), events)
        names = [one.WhichOneof("event") for one in events]
        assert (names[0], set(names[1:-1]), names[-1]) == ("started", {"delta"}, "finished")
        assert (await shell.result(shell.stream([user("?")]))).text == "Once upon a time"


@both
async def test_the_whole_answer_survives_a_cut(kind: str) -> None:
    async with client_of(kind) as (shell, served, a, b):
        a.always(CUT)
        b.always(WHOLE)
        got = await shell.result(shell.stream("?"))
        assert (got.text, got.route.target) == ("Once upon a time", "b1")
        assert [attempt.target for attempt in got.route.attempts] == ["a1", "b1"]
        assert served.idle


@both
async def test_text_that_was_handed_out_is_taken_back_only_where_the_caller_says_how(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, b):
        a.always(CUT)
        b.always(WHOLE)
        texts: list[str] = []
        with pytest.raises(modelrouter.StreamInterrupted) as caught:
            await shell.texts(shell.stream("?"), texts)
        assert caught.value.partial == "".join(texts) == "Once "
        assert caught.value.output_tokens >= 1
        assert not b.requests, "nobody starts over for a caller who could not use it"

        texts.clear()
        resets: list[chat_pb2.StreamReset] = []

        def forget(reset: chat_pb2.StreamReset) -> None:
            resets.append(reset)
            texts.clear()

        stream = shell.stream("?", on_reset=forget)
        await shell.texts(stream, texts)
        assert stream.answer.text == "Once upon a time"
        assert [reset.resumed for reset in resets] == [False]
        assert stream.answer.text.endswith("".join(texts))


@both
async def test_events_show_the_reset(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, b):
        a.always(CUT)
        b.always(WHOLE)
        events: list[chat_pb2.StreamChatResponse] = []
        await shell.events(shell.stream("?"), events)
        names = [one.WhichOneof("event") for one in events if not one.HasField("delta")]
        assert names == ["started", "reset", "finished"]


@both
async def test_asking_for_no_recovery_interrupts_the_result_too(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, b):
        a.always(CUT)
        b.always(WHOLE)
        with pytest.raises(modelrouter.StreamInterrupted) as caught:
            await shell.result(shell.stream("?", stream_recovery="none"))
        assert caught.value.partial == "Once "


@both
async def test_vectors_are_a_matrix(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, _b):
        a.always(embeds)
        got = await shell.embed(["a", "bb", "ccc"], model="chat")
        matrix = np.asarray(got)
        assert matrix.dtype == np.dtype(np.float32)
        assert matrix.shape == (3, 2)
        assert matrix[:, 0].tolist() == [1, 2, 3]
        assert (len(got), got.dimensions, got.usage.input_tokens) == (3, 2, 3)


@both
async def test_routes(kind: str) -> None:
    async with client_of(kind) as (shell, _served, _a, _b):
        found = {model.name: model for model in await shell.models()}
        assert found["chat"].targets == ("a1", "b1")
        assert found["only-a"].available


@both
async def test_leaving_a_stream_leaves_the_upstream(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, _b):
        a.always((*SSE_HEAD, event(pieces("Once ", finish=None)[0]), End.STALL))
        assert await shell.leave(shell.stream("?")) == "Once "
        async with asyncio.timeout(1):
            await a.connections[0].closed.wait()


FAILURES: list[tuple[Any, dict[str, Any], type[modelrouter.ModelRouterError], str]] = [
    (refusal(500), {"temperature": 9.0}, modelrouter.InvalidRequest, "generation.temperature"),
    (refusal(400), {}, modelrouter.InvalidRequest, "refused"),
    (refusal(500), {"model": "nobody"}, modelrouter.ModelNotFound, "nobody"),
    (refusal(400, "context_length_exceeded"), {}, modelrouter.ContextLengthExceeded, "too long"),
    (refusal(400, "content_filter"), {}, modelrouter.ContentFiltered, "content filter"),
    (refusal(429, retry_after="30"), {"timeout": 9.0}, modelrouter.RateLimited, "Try again in 30 s"),
    (refusal(503), {}, modelrouter.AllTargetsFailed, "Tried a1 (unavailable, http_503)"),
    (refusal(401), {}, modelrouter.UpstreamMisconfigured, "key"),
    (refusal(404), {}, modelrouter.UpstreamMisconfigured, "model"),
    ((End.STALL,), {"timeout": 0.9}, modelrouter.DeadlineExceeded, "first_token"),
]


@pytest.mark.parametrize(
    ("reply", "options", "error", "words"),
    FAILURES,
    ids=[f"{f[2].__name__}-{i}" for i, f in enumerate(FAILURES)],
)
async def test_failures_have_types_and_words(
    reply: Any, options: dict[str, Any], error: type[modelrouter.ModelRouterError], words: str
) -> None:
    async with client_of("asyncio", max_attempts=1) as (shell, _served, a, _b):
        a.always(reply)
        for call in (shell.chat("?", **{"model": "only-a", **options}), None):
            with pytest.raises(error) as caught:
                await (call or shell.result(shell.stream("?", **{"model": "only-a", **options})))
            assert type(caught.value) is error
            told = f"{caught.value} {caught.value.metadata} {[v.field for v in caught.value.violations]}"
            assert words in told
            assert "very-secret-a" not in told


async def test_a_deadline_says_what_it_ended() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        b.always((End.STALL,))
        text = "server: {deadline: {unary: 300ms, stream: 300ms}}\n" + two_targets(a, b)
        async with serving(text) as served, opened("asyncio", served.target) as shell:
            for call in (shell.chat("?"), shell.result(shell.stream("?"))):
                with pytest.raises(modelrouter.DeadlineExceeded) as caught:
                    await call
                assert caught.value.metadata["phase"] == "first_token"


async def test_a_full_queue_is_saturated() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always((End.STALL,))
        text = two_targets(a, b, extra=", max_concurrency: 1, max_queue: 0").replace("unary: 1s", "unary: 9s")
        async with serving(text) as served, opened("asyncio", served.target, max_attempts=1) as shell:
            holder = asyncio.create_task(shell.chat("?", model="only-a"))
            await a.requested()
            with pytest.raises(modelrouter.Saturated) as caught:
                await shell.chat("?", model="only-a")
            assert caught.value.retry_after == 1.0
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder


async def test_what_no_target_can_do() -> None:
    text = """
        providers: {s: {kind: static, content: "Sorry.", health_check: null}}
        targets: {s1: {provider: s, model: sorry}}
        routes: {chat: {targets: [s1]}}
    """
    async with serving(text) as served, opened("asyncio", served.target) as shell:
        assert (await shell.chat("?")).text == "Sorry."
        with pytest.raises(modelrouter.CapabilityUnsupported) as caught:
            await shell.embed("?", model="chat")
        assert caught.value.capability == "embed"


async def test_the_bad_input_is_named() -> None:
    async with client_of("asyncio") as (shell, _served, a, _b):
        a.always(refuses("bad"))
        with pytest.raises(modelrouter.InvalidRequest) as caught:
            await shell.embed(["good", "bad"], model="only-a")
        assert [violation.field for violation in caught.value.violations] == ["inputs[1]"]


async def test_no_server() -> None:
    async with Upstream() as a, Upstream() as b, serving(two_targets(a, b)) as served:
        target = served.target
    async with opened("asyncio", target, max_attempts=1) as shell:
        with pytest.raises(modelrouter.ServerUnreachable, match="make run"):
            await shell.chat("?")


@both
async def test_a_retry_comes_exactly_when_the_server_said(kind: str) -> None:
    """Every target fails, and pushback says one second; the second try is answered."""
    async with client_of(kind) as (shell, _served, a, _b):
        moments: list[float] = []

        def recovering(_request: Any) -> Steps:
            moments.append(asyncio.get_running_loop().time())
            return refusal(503) if len(moments) <= 2 else json_reply(answer("back"))  # type: ignore[return-value]

        a.always(recovering)
        assert (await shell.chat("?", model="only-a")).text == "back"
        tries = len(moments)
        assert tries == 3
        assert moments[2] - moments[1] >= 0.99


@both
async def test_a_wait_that_is_too_long_is_not_waited(kind: str) -> None:
    """Thirty seconds do not fit the deadline, and are too long a pushback: nobody asks again."""
    async with client_of(kind) as (shell, served, a, _b):
        a.always(refusal(429, retry_after="30"))
        for _ in range(2):
            async with asyncio.timeout(5):
                with pytest.raises(modelrouter.RateLimited) as caught:
                    await shell.chat("?", model="only-a", timeout=20)
            assert caught.value.retry_after == pytest.approx(30, abs=2)
        assert len(a.requests) == 1, "a target that rests is not asked"
        assert served.idle


@both
async def test_a_stream_is_not_retried_once_it_has_begun(kind: str) -> None:
    async with client_of(kind) as (shell, _served, a, _b):
        a.always(CUT)
        texts: list[str] = []
        with pytest.raises(modelrouter.StreamInterrupted):
            await shell.texts(shell.stream("?", model="only-a"), texts)
        assert texts == ["Once "]
        assert len(a.requests) == 1


async def test_a_message_that_is_too_large_is_refused_with_what_to_do() -> None:
    async with (
        Upstream() as a,
        Upstream() as b,
        serving(two_targets(a, b)) as served,
        modelrouter.AsyncClient(served.target) as client,
    ):
        with pytest.raises(modelrouter.InvalidRequest, match="max_receive_bytes"):
            await client.chat("x" * 17_000_000, model="chat")
