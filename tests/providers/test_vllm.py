"""The kind ``vllm`` over real sockets: what it adds to OpenAI's wire."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pydantic
import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Capability, Provider, Surroundings
from router_server.core.reading import Reads
from router_server.core.types import (
    Choice,
    Delta,
    DeltaKind,
    EngineTimes,
    Finish,
    Generation,
    Grammar,
    JsonSchema,
    Message,
    Reasoning,
    ReasoningEffort,
    Regex,
    Report,
    ResponseFormat,
    Role,
    StreamItem,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
)
from router_server.providers._vllm_settings import Settings
from router_server.providers.vllm import KIND
from tests.providers.checks import verdict_of
from tests.providers.openai_talk import HELLO, call, chunk_of, collect, stream, text_chunks
from tests.upstream import (
    LAST_CHUNK,
    SSE_HEAD,
    End,
    Reply,
    Request,
    Steps,
    Upstream,
    event,
    json_reply,
    sse_reply,
)

ANSWER = json_reply(
    {"model": "m-1", "choices": [{"message": {"content": "Hi", "reasoning": "Hm"}, "finish_reason": "stop"}]}
)


def provider_at(base_url: str, **settings: Any) -> Provider:
    return KIND.create(KIND.settings(base_url=base_url, **settings), Surroundings(name="x"))


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Provider]:
    made = provider_at(upstream.base_url)
    yield made
    await made.close()


async def sent(upstream: Upstream, provider: Provider, **fields: Any) -> Any:
    """Return the body that a call becomes, without the parts that every body has."""
    upstream.then(ANSWER)
    await provider.chat(call(**fields))
    body = upstream.requests[-1].json
    del body["model"], body["messages"]
    return body


async def test_the_smallest_request(upstream: Upstream, provider: Provider) -> None:
    assert await sent(upstream, provider) == {}
    request = upstream.requests[0]
    assert request.target == "/v1/chat/completions"
    assert "authorization" not in request.headers


async def test_an_answer_with_reasoning(upstream: Upstream, provider: Provider) -> None:
    upstream.then(ANSWER, sse_reply([chunk_of({"reasoning": "Hm"}), *text_chunks("Hi")]))
    answer = await provider.chat(call())
    assert answer.message.content == (Reasoning("Hm"), Text("Hi"))
    whole = await stream(provider)
    assert whole.parts == [(DeltaKind.REASONING, "Hm", "", ""), (DeltaKind.TEXT, "Hi", "", "")]


TIMES = {
    "time_to_first_token_ms": 120.5,
    "generation_time_ms": 800.0,
    "queue_time_ms": 2.25,
    "mean_itl_ms": 8.0,
    "tokens_per_second": 108.6,
}
"""As vLLM 0.32 with ``--enable-per-request-metrics`` writes it; what it does not know it leaves out."""


@pytest.mark.parametrize(
    ("metrics", "times"),
    [
        (TIMES, EngineTimes(0.00225, 0.1205, 0.8)),
        ({"queue_time_ms": 2.0}, EngineTimes(0.002)),
        ({"speculative_decoding": {"num_drafts": 3}}, None),
        ({"queue_time_ms": "quick"}, None),
        ({"queue_time_ms": -1}, None),
        (["something", "else"], None),
        (None, None),
    ],
)
async def test_where_the_engine_says_that_its_time_went(
    upstream: Upstream, provider: Provider, metrics: Any, times: EngineTimes | None
) -> None:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    upstream.then(json_reply({"choices": [choice], "usage": {}, "metrics": metrics}))
    assert (await provider.chat(call())).engine == times
    last = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "metrics": metrics}
    upstream.then(sse_reply([*text_chunks("Hi"), last]))
    items = [item async for read in provider.stream(call()) for item in read]
    reports = [item for item in items if isinstance(item, Report) and item.usage]
    assert [report.engine for report in reports] == [times]


async def test_the_key(upstream: Upstream) -> None:
    provider = provider_at(upstream.base_url, api_key="token-abc")
    await sent(upstream, provider)
    assert upstream.requests[0].headers["authorization"] == "Bearer token-abc"
    await provider.close()


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with Upstream(path=tmp_path / "vllm.sock") as upstream:
        provider = provider_at(f"unix://{tmp_path}/vllm.sock")
        upstream.on("/health", json_reply({}))
        assert await sent(upstream, provider) == {}
        assert upstream.requests[0].target == "/v1/chat/completions"
        assert await provider.check() is True
        assert provider.address == (str(tmp_path / "vllm.sock"), None)
        await provider.close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_api_is_below_v1_also_where_the_address_names_only_the_server(
    upstream: Upstream, suffix: str
) -> None:
    provider = provider_at(upstream.root_url + suffix)
    upstream.on("/health", json_reply({}))
    await sent(upstream, provider)
    assert upstream.requests[0].target == "/v1/chat/completions"
    assert await provider.check() is True
    await provider.close()


async def test_sampling(upstream: Upstream, provider: Provider) -> None:
    generation = Generation(max_output_tokens=5, top_k=40, seed=7, reasoning_effort=ReasoningEffort.LOW)
    assert await sent(upstream, provider, generation=generation) == {
        "max_tokens": 5,
        "top_k": 40,
        "seed": 7,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (Regex("[a-z]+"), {"structured_outputs": {"regex": "[a-z]+"}}),
        (Grammar('root ::= "a"'), {"structured_outputs": {"grammar": 'root ::= "a"'}}),
        (Choice(("yes", "no")), {"structured_outputs": {"choice": ["yes", "no"]}}),
        (
            JsonSchema("n", '{"type":"object"}'),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}},
                }
            },
        ),
    ],
)
async def test_bound_answers(
    upstream: Upstream, provider: Provider, wanted: ResponseFormat, fields: dict[str, Any]
) -> None:
    assert await sent(upstream, provider, response_format=wanted) == fields


async def test_allowed_tools_are_the_only_ones_offered(upstream: Upstream, provider: Provider) -> None:
    body = await sent(
        upstream, provider, tools=(Tool("a"), Tool("b")), tool_choice=ToolChoice(ToolMode.AUTO, ("b",))
    )
    assert body == {"tools": [{"type": "function", "function": {"name": "b"}}], "tool_choice": "auto"}


async def test_chat_template_arguments_are_the_callers(upstream: Upstream, provider: Provider) -> None:
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    assert await sent(upstream, provider, options=options) == options


async def test_earlier_thinking_is_sent_back(upstream: Upstream, provider: Provider) -> None:
    upstream.then(ANSWER)
    await provider.chat(call(*HELLO, Message(Role.ASSISTANT, (Reasoning("Hm"), Text("Hi")))))
    assert upstream.requests[0].json["messages"][1] == {
        "role": "assistant",
        "content": "Hi",
        "reasoning": "Hm",
    }


async def test_a_continuation(upstream: Upstream, provider: Provider) -> None:
    upstream.then(sse_reply(text_chunks(" a time")))
    whole = await stream(provider, call(continuation="Once upon"))
    assert whole.parts[0][1] == " a time"
    body = upstream.requests[0].json
    assert body["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(("ours", "theirs"), [(5, {"priority": -5}), (-3, {"priority": 3}), (0, {})])
async def test_the_more_urgent_has_the_lower_number(
    upstream: Upstream, provider: Provider, ours: int, theirs: dict[str, int]
) -> None:
    assert await sent(upstream, provider, priority=ours) == theirs


def without_priorities(request: Request) -> Steps:
    """Answer as a vLLM does that schedules first come, first served."""
    body = request.json
    if body.get("priority"):
        message = f"Got priority {body['priority']} but Priority scheduling is not enabled."
        return json_reply({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
    return sse_reply(text_chunks("Hi")) if body.get("stream") else ANSWER


async def test_a_server_that_knows_no_priorities_is_asked_again_without_and_remembered(
    upstream: Upstream, provider: Provider
) -> None:
    upstream.always(without_priorities)
    wholes = await asyncio.gather(*(stream(provider, call(priority=5)) for _ in range(3)))
    assert [whole.parts[0][1] for whole in wholes] == ["Hi"] * 3
    before = len(upstream.requests)
    await provider.chat(call(priority=5))
    await stream(provider, call(priority=5))
    assert len(upstream.requests) == before + 2


async def test_so_is_one_that_is_asked_for_a_whole_answer(upstream: Upstream, provider: Provider) -> None:
    upstream.always(without_priorities)
    assert (await provider.chat(call(priority=1))).message.content[-1] == Text("Hi")


@pytest.mark.parametrize("priority", [0, 1])
async def test_other_mistakes_are_the_callers(upstream: Upstream, provider: Provider, priority: int) -> None:
    upstream.always(json_reply({"error": {"message": "top_k must be positive", "code": 400}}, 400))
    for attempt in (provider.chat(call(priority=priority)), stream(provider, call(priority=priority))):
        with pytest.raises(UpstreamError) as caught:
            await attempt
        assert (caught.value.outcome, caught.value.reason) == (Outcome.INVALID_REQUEST, "http_400")
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("priority", [0, 1])
async def test_closing_the_stream_closes_the_connection(
    upstream: Upstream, provider: Provider, priority: int
) -> None:
    upstream.then((*SSE_HEAD, event(chunk_of({"content": "a"})), End.STALL))
    reads = provider.stream(call(priority=priority))
    await anext(reads)
    await reads.aclose()  # type: ignore[attr-defined]  # the protocol promises an async generator
    async with asyncio.timeout(5):
        await upstream.connections[0].closed.wait()


@pytest.mark.parametrize("priority", [0, 1])
async def test_what_follows_the_first_read_is_handed_over(
    upstream: Upstream, provider: Provider, priority: int
) -> None:
    go, taken = asyncio.Event(), list[StreamItem]()

    def take(items: Sequence[StreamItem]) -> bool:
        taken.extend(items)
        return True

    upstream.then(
        (*SSE_HEAD, event(chunk_of({"content": "a"})), go, *map(event, text_chunks("b")), LAST_CHUNK)
    )
    reads = cast("Reads", provider.stream(call(priority=priority)))
    await anext(reads)
    go.set()
    with pytest.raises(StopAsyncIteration):
        await reads.asend(take)
    assert "".join(item.text for item in taken if isinstance(item, Delta)) == "b"
    assert any(isinstance(item, Finish) for item in taken)


async def test_a_broken_stream_with_a_priority_is_not_made_again(
    upstream: Upstream, provider: Provider
) -> None:
    upstream.then((*SSE_HEAD, event(chunk_of({"content": "a"})), End.RESET))
    with pytest.raises(UpstreamError, match="reset"):
        await collect(provider.stream(call(priority=1)))
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("what", "verdict"),
    [
        (json_reply({}), True),
        (json_reply({}, 503), False),
        (json_reply({}, 500), False),
        (json_reply({}, 401), False),
        (json_reply({}, 302), False),
        (json_reply({}, 404), None),
        (json_reply({}, 405), None),
        ((End.RESET,), False),
    ],
)
async def test_the_active_check(
    upstream: Upstream, provider: Provider, what: Reply, verdict: bool | None
) -> None:
    upstream.on("/health", what)
    assert await verdict_of(provider) is verdict


async def test_the_check_of_a_server_behind_a_prefix(upstream: Upstream) -> None:
    provider = provider_at(f"{upstream.root_url}/gpu-1/v1")
    upstream.on("/gpu-1/health", json_reply({}))
    assert await provider.check() is True
    await provider.close()


async def test_the_check_of_a_server_that_is_down(upstream: Upstream, provider: Provider) -> None:
    await upstream.stop()
    assert await verdict_of(provider) is False


async def test_a_prompt_that_is_too_long(upstream: Upstream, provider: Provider) -> None:
    message = "This model's maximum context length is 8192 tokens. However, you requested 9000."
    upstream.then(json_reply({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400))
    with pytest.raises(UpstreamError) as caught:
        await stream(provider)
    assert caught.value.outcome is Outcome.CONTEXT_LENGTH


async def test_an_error_inside_the_stream(upstream: Upstream, provider: Provider) -> None:
    error = {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}
    upstream.then(sse_reply([chunk_of({"content": "a"}), error]))
    with pytest.raises(UpstreamError) as caught:
        await stream(provider)
    assert caught.value.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize(
    "wrong", [{}, {"base_url": "localhost:8000"}, {"base_url": "unix://x"}, {"base_url": "http://h", "x": 1}]
)
def test_settings_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings(**wrong)


def test_the_kind() -> None:
    assert KIND.name == "vllm"
    assert {
        Capability.CONTINUATION,
        Capability.REGEX,
        Capability.GRAMMAR,
        Capability.TOP_K,
    } <= KIND.capabilities
    assert Capability.DOCUMENT_INLINE not in KIND.capabilities
