"""The kind ``litellm``: what is asked of an upstream, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.opaque import seal
from router_server.core.provider import Capability, Provider, Surroundings, UpstreamEmbed
from router_server.core.types import (
    Blob,
    Delta,
    DeltaKind,
    EmbeddingTask,
    EmbedRequest,
    FinishReason,
    Generation,
    JsonObject,
    JsonSchema,
    Message,
    Reasoning,
    ReasoningEffort,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
)
from router_server.providers import SetupError
from router_server.providers.litellm import KIND
from tests.kinds.litellm_talk import (
    KEY,
    LITELLM_MARKS,
    anthropic_block,
    anthropic_end,
    anthropic_stream,
    provider_at,
)
from tests.providers.openai_talk import USAGE, USAGE_CHUNK, call, chunk_of, stream, text_chunks, tool_chunk
from tests.secrecy import must_not_show
from tests.upstream import SSE_HEAD, End, Steps, Upstream, event, json_reply, sse_reply

pytestmark = LITELLM_MARKS

OPENAI = "openai/m"
CLAUDE = "anthropic/claude-x"
WEATHER = Tool("weather", "of a city", '{"type": "object", "properties": {"city": {"type": "string"}}}')


def completion(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice], **more}


async def test_an_answer(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply(completion({"content": "Hi!"}, usage=USAGE_CHUNK["usage"])))
    answer = await provider.chat(call(model=OPENAI, headers={"traceparent": "00-1-2-01"}))
    assert answer.message.content == (Text("Hi!"),)
    assert (answer.finish_reason, answer.usage, answer.reported_model) == (FinishReason.STOP, USAGE, "m-1")
    (request,) = upstream.requests
    assert request.target == "/v1/chat/completions"
    assert request.json == {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["traceparent"] == "00-1-2-01"


async def test_everything_that_an_answer_may_hold(upstream: Upstream, provider: Provider) -> None:
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    message = {
        "content": "Look:",
        "reasoning_content": "Hmm.",
        "tool_calls": [{"id": "t1", "type": "function", "function": function}],
    }
    upstream.then(json_reply(completion(message, "tool_calls")))
    answer = await provider.chat(call(model=OPENAI, tools=(WEATHER,)))
    assert answer.message.content == (
        Reasoning("Hmm."),
        Text("Look:"),
        ToolCall("t1", "weather", '{"city": "Rome"}'),
    )
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.usage is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
    ],
)
async def test_reasons_to_finish(
    upstream: Upstream, provider: Provider, word: str, reason: FinishReason
) -> None:
    upstream.then(json_reply(completion({"content": "a"}, word)), sse_reply(text_chunks("a", finish=word)))
    assert (await provider.chat(call(model=OPENAI))).finish_reason is reason
    assert (await stream(provider, call(model=OPENAI))).finish is reason


async def test_everything_that_can_be_asked(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply(completion({"content": "{}"})))
    generation = Generation(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop_sequences=("END",),
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=2,
    )
    messages = (
        Message(Role.SYSTEM, (Text("Be short."),)),
        Message(Role.USER, (Text("What is it?"), Blob("image/png", b"png"))),
        Message(Role.ASSISTANT, (ToolCall("t1", "weather", '{"city": "Rome"}'),)),
        Message(Role.TOOL, (ToolResult("t1", (Text("21 degrees"),)),)),
    )
    await provider.chat(
        call(
            *messages,
            model=OPENAI,
            generation=generation,
            tools=(WEATHER,),
            tool_choice=ToolChoice(ToolMode.REQUIRED, parallel=False),
            response_format=JsonSchema("a", '{"type": "object"}', strict=True),
            options={"logit_bias": {"5": 1}},
        )
    )
    sent = upstream.requests[0].json
    schema = {"name": "a", "schema": {"type": "object"}, "strict": True}
    assert sent.pop("messages")[1:] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "21 degrees"},
    ]
    assert sent.pop("tools")[0]["function"]["name"] == "weather"
    assert sent == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logprobs": True,
        "top_logprobs": 2,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "logit_bias": {"5": 1},
    }


async def test_a_stream(upstream: Upstream, provider: Provider) -> None:
    upstream.then(sse_reply([*text_chunks("Hel", "lo"), USAGE_CHUNK]))
    whole = await stream(provider, call(model=OPENAI))
    assert whole.parts == [(DeltaKind.TEXT, "Hello", "", "")]
    assert (whole.finish, whole.usage) == (FinishReason.STOP, USAGE)
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}


async def test_a_stream_whose_usage_nobody_tells(upstream: Upstream, provider: Provider) -> None:
    upstream.then(sse_reply(text_chunks("Hello")))
    assert (await stream(provider, call(model=OPENAI))).usage is None


async def test_a_stream_of_reasoning_and_tools(upstream: Upstream, provider: Provider) -> None:
    chunks = [
        chunk_of({"role": "assistant", "reasoning_content": "Hm"}),
        chunk_of({"reasoning_content": "m."}),
        tool_chunk(index=0, id="t1", name="weather", arguments=""),
        tool_chunk(index=0, arguments='{"city": '),
        tool_chunk(index=1, id="t2", name="weather", arguments=""),
        tool_chunk(index=0, arguments='"Rome"}'),
        tool_chunk(index=1, arguments="{}"),
        chunk_of(finish="tool_calls"),
    ]
    upstream.then(sse_reply(chunks))
    whole = await stream(provider, call(model=OPENAI, tools=(WEATHER,)))
    assert whole.parts == [
        (DeltaKind.REASONING, "Hmm.", "", ""),
        (DeltaKind.TOOL_CALL, '{"city": "Rome"}', "t1", "weather"),
        (DeltaKind.TOOL_CALL, "{}", "t2", "weather"),
    ]
    assert whole.finish is FinishReason.TOOL_CALLS


async def test_pieces_come_as_they_are_sent(upstream: Upstream, provider: Provider) -> None:
    more = asyncio.Event()
    first, *rest = text_chunks("a", "b")[1:]
    upstream.then((*SSE_HEAD, event(first), more, *sse_reply(rest)[1:]))
    reads = provider.stream(call(model=OPENAI))
    items = list(await anext(reads))
    assert [item.text for item in items if hasattr(item, "text")] == ["a"]
    more.set()
    assert [read async for read in reads]


async def test_another_provider(upstream: Upstream) -> None:
    provider = provider_at(upstream.root_url)
    thinking = {"type": "thinking_delta", "thinking": "Hmm."}
    pieces = [{"type": "input_json_delta", "partial_json": text} for text in ('{"city": ', '"Rome"}')]
    upstream.then(
        anthropic_stream(
            *anthropic_block(0, {"type": "thinking", "thinking": ""}, thinking),
            *anthropic_block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Look:"}),
            *anthropic_block(2, {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}, *pieces),
            *anthropic_end("tool_use"),
        )
    )
    asked = call(
        Message(Role.SYSTEM, (Text("Be short."),)),
        Message(Role.USER, (Text("Rome?"), Blob("image/png", b"png"))),
        model="anthropic/claude-sonnet-4-5",
        tools=(WEATHER,),
        generation=Generation(max_output_tokens=9, reasoning_effort=ReasoningEffort.LOW),
        headers={"traceparent": "00-1-2-01"},
    )
    whole = await stream(provider, asked)
    assert whole.parts == [
        (DeltaKind.REASONING, "Hmm.", "", ""),
        (DeltaKind.TEXT, "Look:", "", ""),
        (DeltaKind.TOOL_CALL, '{"city": "Rome"}', "t1", "weather"),
    ]
    assert (whole.finish, whole.usage) == (
        FinishReason.TOOL_CALLS,
        Usage(13, 7, cache_read_input_tokens=4),
    )
    (request,) = upstream.requests
    assert request.target == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["traceparent"] == "00-1-2-01"
    sent = request.json
    assert sent["system"] == [{"type": "text", "text": "Be short."}]
    assert sent["messages"][0]["content"][1]["source"]["data"] == "cG5n"
    assert sent["tools"][0]["name"] == "weather"
    assert sent["thinking"]["type"] == "enabled"
    await provider.close()


THINKING = {"type": "thinking", "thinking": "Hmm.", "signature": "c2lnbmVk"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_signed_thoughts_go_back_with_the_next_turn(upstream: Upstream, *, streamed: bool) -> None:
    provider = provider_at(upstream.root_url)
    model = "anthropic/claude-sonnet-4-5"
    asked: dict[str, Any] = {
        "model": model,
        "tools": (WEATHER,),
        "generation": Generation(max_output_tokens=9, reasoning_effort=ReasoningEffort.LOW),
    }
    tool = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
    upstream.then(whole_and_streamed(tool)[streamed], *([whole_and_streamed(tool)[0]] * 2))
    if streamed:
        items = [item async for read in provider.stream(call(**asked)) for item in read]
        states = [item.opaque_state for item in items if isinstance(item, Delta) and item.opaque_state]
        state = states[-1]
    else:
        thought = (await provider.chat(call(**asked))).message.content[0]
        assert isinstance(thought, Reasoning)
        assert thought.text == "Hmm."
        state = thought.opaque_state
    turn = (Reasoning("Hmm.", state), ToolCall("t1", "weather", '{"city": "Rome"}'))
    history = (
        Message(Role.USER, (Text("Rome?"),)),
        Message(Role.ASSISTANT, turn),
        Message(Role.TOOL, (ToolResult("t1", (Text("21 degrees"),)),)),
    )
    await provider.chat(call(*history, **asked))
    assert upstream.requests[1].json["messages"][1]["content"] == [THINKING, tool]
    await provider.chat(call(*history, **{**asked, "model": "anthropic/claude-opus-4-1"}))
    assert upstream.requests[2].json["messages"][1]["content"] == [tool], "the signature is the other model's"
    tampered = Message(Role.ASSISTANT, (Reasoning("Hmm.", seal("litellm", model, b"{")), Text("Rome")))
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(call(tampered, **asked))
    assert caught.value.reason == "opaque_state_tampered"
    await provider.close()


def whole_and_streamed(tool: dict[str, Any]) -> tuple[Steps, Steps]:
    """Return both forms of one answer of Anthropic's: a signed thought, then a tool call."""
    usage = {"input_tokens": 9, "output_tokens": 7}
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "usage": usage}
    thought = [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "thinking_delta", "thinking": "m."},
        {"type": "signature_delta", "signature": THINKING["signature"]},
    ]
    arguments = {"type": "input_json_delta", "partial_json": json.dumps(tool["input"])}
    streamed = anthropic_stream(
        *anthropic_block(0, {"type": "thinking", "thinking": "", "signature": ""}, *thought),
        *anthropic_block(1, {**tool, "input": {}}, arguments),
        *anthropic_end("tool_use"),
    )
    return json_reply({**body, "content": [THINKING, tool], "stop_reason": "tool_use"}), streamed


async def test_embeddings(upstream: Upstream, provider: Provider) -> None:
    rows = [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": [1.0, 2.0]}]
    upstream.then(
        json_reply({"data": rows, "model": "e-1", "usage": {"prompt_tokens": 6, "total_tokens": 6}})
    )
    asked = UpstreamEmbed("openai/text-embedding-3-small", EmbedRequest("r", ("a", "b"), dimensions=2))
    answer = await provider.embed(asked)
    assert memoryview(answer.vectors.data).cast("f").tolist() == [1.0, 2.0, 3.0, 4.0]
    assert (answer.usage, answer.reported_model) == (Usage(input_tokens=6), "e-1")
    assert upstream.requests[0].json["dimensions"] == 2


async def test_embeddings_of_another_provider(upstream: Upstream) -> None:
    provider = provider_at(f"{upstream.root_url}/v2/embed")
    meta = {"billed_units": {"input_tokens": 5}}
    upstream.then(json_reply({"id": "1", "embeddings": {"float": [[1, 2], [3, 4]]}, "meta": meta}))
    request = EmbedRequest("r", ("a", "b"), task=EmbeddingTask.QUERY)
    answer = await provider.embed(UpstreamEmbed("cohere/embed-v4.0", request))
    assert (answer.vectors.rows, answer.vectors.dimensions) == (2, 2)
    assert answer.usage == Usage(input_tokens=5)
    assert upstream.requests[0].json["input_type"] == "search_query"
    await provider.close()


@pytest.mark.parametrize(
    "rows", [[], [{"index": 0, "embedding": [1.0]}], [{"index": 0, "embedding": [1.0]}] * 2, "no"]
)
async def test_vectors_that_do_not_fit(upstream: Upstream, provider: Provider, rows: object) -> None:
    upstream.then(json_reply({"data": rows, "model": "e"}))
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(UpstreamEmbed("openai/e", EmbedRequest("r", ("a", "b"))))
    assert caught.value.outcome is Outcome.MALFORMED


@pytest.mark.parametrize(
    "name",
    [
        *("api_base", "base_url", "api_key", "aws_access_key_id", "extra_headers", "custom_llm_provider"),
        *("mock_response", "callbacks", "metadata", "messages"),
    ],
)
async def test_an_option_that_is_refused_never_leaves(
    upstream: Upstream, provider: Provider, name: str
) -> None:
    for asking in (
        provider.chat(call(model=OPENAI, options={name: "x"})),
        provider.embed(UpstreamEmbed("openai/e", EmbedRequest("r", ("a",)), {name: "x"})),
    ):
        with pytest.raises(UpstreamError) as caught:
            await asking
        assert (caught.value.outcome, caught.value.reason) == (
            Outcome.INVALID_REQUEST,
            "provider_option_refused",
        )
    assert not upstream.requests


@pytest.mark.parametrize("model", [OPENAI, CLAUDE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_closes_the_connection(upstream: Upstream, model: str, *, streamed: bool) -> None:
    provider = provider_at(upstream.root_url)
    upstream.then((End.STALL,))
    asking = asyncio.create_task(
        stream(provider, call(model=model)) if streamed else provider.chat(call(model=model))
    )
    await upstream.requested()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await upstream.connections[0].closed.wait()
    await provider.close()


@pytest.mark.parametrize("model", [OPENAI, CLAUDE])
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_giving_a_stream_up_closes_the_connection(upstream: Upstream, model: str, how: str) -> None:
    provider = provider_at(upstream.root_url)
    text = anthropic_block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a"})[:2]
    begun = (*SSE_HEAD, event(text_chunks("a")[1])) if model is OPENAI else anthropic_stream(*text)
    upstream.then((*begun, End.STALL))
    reads = provider.stream(call(model=model))
    assert isinstance(reads, AsyncGenerator)
    await anext(reads)
    if how == "cancelled":
        waiting = asyncio.ensure_future(anext(reads))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await reads.aclose()
    await upstream.connections[0].closed.wait()
    await provider.close()


async def test_calls_follow_each_other_on_one_connection(upstream: Upstream, provider: Provider) -> None:
    upstream.always(json_reply(completion({"content": "a"})))
    for limit in (4.1, 4.2, 4.3):
        await provider.chat(call(model=OPENAI, connect_timeout=limit))
    assert len(upstream.connections) == 1
    await provider.close()
    await upstream.connections[0].closed.wait()


async def test_two_providers_share_no_connection(upstream: Upstream) -> None:
    upstream.always(json_reply(completion({"content": "a"})))
    one, other = provider_at(upstream.base_url), provider_at(upstream.base_url)
    await one.chat(call(model=OPENAI))
    await other.chat(call(model=OPENAI))
    await one.close()
    await upstream.connections[0].closed.wait()
    assert not upstream.connections[1].closed.is_set()
    await other.chat(call(model=OPENAI))
    assert len(upstream.connections) == 2
    await other.close()


async def test_nothing_of_litellms_own_stays_behind(upstream: Upstream, provider: Provider) -> None:
    """No logging task, no callback: one call is one request, and then there is nothing left to do."""
    before = asyncio.all_tasks()
    upstream.then(json_reply(completion({"content": "a"})))
    await provider.chat(call(model=OPENAI))
    async with asyncio.timeout(20):
        while left := asyncio.all_tasks() - before - upstream._tasks:
            await asyncio.wait(left)


async def test_parameters_and_credentials_go_along(upstream: Upstream) -> None:
    settings = KIND.settings(
        base_url=upstream.base_url,
        api_key=KEY,
        parameters={"temperature": 0.5, "extra_headers": {"x-tenant": "t"}},
        credentials={"organization": "very-secret"},
    )
    must_not_show("the settings", settings, settings.model_dump())
    provider = KIND.create(settings, Surroundings("x"))
    upstream.then(json_reply(completion({"content": "a"})))
    await provider.chat(call(model=OPENAI, headers={"traceparent": "00-1-2-01"}))
    (request,) = upstream.requests
    assert request.json["temperature"] == 0.5
    assert (request.headers["x-tenant"], request.headers["traceparent"]) == ("t", "00-1-2-01")
    assert request.headers["openai-organization"] == "very-secret"
    await provider.close()


@pytest.mark.parametrize("key", ["parameters", "credentials"])
@pytest.mark.parametrize("name", ["api_key", "api_base", "timeout", "num_retries", "fallbacks", "model"])
def test_what_other_keys_say_is_refused(key: str, name: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=f"must not set {name}"):
        KIND.settings.model_validate({key: {name: "very-secret"}})


def test_models_are_named_as_litellm_does() -> None:
    assert KIND.prepare is not None
    said: list[str] = []
    KIND.prepare(Surroundings("x", models=("openai/m", "bedrock/anthropic.claude-v2", "gpt-4o")), said.append)
    assert said
    with pytest.raises(SetupError, match="the provider x has a model nobodys-model"):
        KIND.prepare(Surroundings("x", models=("nobodys-model",)), said.append)


def test_what_a_model_can_do() -> None:
    settings = KIND.settings()
    assert Capability.CHAT not in KIND.capabilities_of(settings, "cohere/embed-v4.0")
    assert Capability.IMAGE_URL not in KIND.capabilities_of(settings, CLAUDE)
    assert Capability.TOOLS in KIND.capabilities_of(settings, CLAUDE)


async def test_its_health_cannot_be_asked(provider: Provider) -> None:
    assert await provider.check() is None
    assert provider.address[0] == "127.0.0.1"


IMPORTING = """
    import logging, socket, sys
    from router_server.providers.litellm import KIND
    print("litellm" in sys.modules)

    def forbidden(*_):
        raise AssertionError("it asks the network")
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = forbidden
    from router_server.providers._litellm_library import library
    litellm = library()
    print(litellm.get_llm_provider("bedrock/x")[1])
    logging.getLogger("LiteLLM").error("heard")
    print(logging.getLogger().handlers, "FROM_A_FILE" in __import__("os").environ)
"""


def test_importing_it_is_late_and_quiet(tmp_path: Path) -> None:
    """Neither its price list nor an ``.env`` file of the working folder is read, and it says nothing."""
    (tmp_path / ".env").write_text("FROM_A_FILE=1\n")
    code = "\n".join(line.removeprefix("    ") for line in IMPORTING.splitlines())
    env = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
    run = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["False", "bedrock", "[] False"]


async def test_a_json_object(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply(completion({"content": '{"a": 1}'})))
    answer = await provider.chat(call(model=OPENAI, response_format=JsonObject()))
    [part] = answer.message.content
    assert isinstance(part, Text)
    assert json.loads(part.text) == {"a": 1}
    assert upstream.requests[0].json["response_format"] == {"type": "json_object"}
