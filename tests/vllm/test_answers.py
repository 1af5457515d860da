"""What real vLLM answers, through the router and the client library."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

import modelrouter
from modelrouter import AsyncClient, FinishReason, tool, tool_result, user
from modelrouter.options import ChatOptions
from modelrouter.v1 import chat_pb2
from tests.vllm.conftest import CAPITAL, CONTEXT

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = tool("weather", "The weather of a city", CITY, strict=True)


async def test_chat(client: AsyncClient) -> None:
    answer = await client.chat(CAPITAL, temperature=0)
    assert "Paris" in answer.text
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage.input_tokens > 5
    assert answer.usage.output_tokens > 3


async def test_a_stream_says_the_same_piece_by_piece(client: AsyncClient) -> None:
    whole = await client.chat(CAPITAL, temperature=0)
    stream = client.stream_chat(CAPITAL, temperature=0)
    pieces = [piece async for piece in stream]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.text
    assert stream.answer.usage == whole.usage
    assert stream.answer.finish_reason is FinishReason.STOP


async def test_two_at_once_are_served_side_by_side(client: AsyncClient) -> None:
    """Each has begun before the other has ended."""
    order: list[str] = []

    async def one(name: str) -> None:
        stream = client.stream_chat("Count to twenty.", temperature=0, max_output_tokens=24)
        async for event in stream.events():
            order.append(f"{name} {event.WhichOneof('event')}")  # noqa: PERF401 - the two take turns

    await asyncio.gather(one("a"), one("b"))
    assert order.index("a started") < order.index("b finished")
    assert order.index("b started") < order.index("a finished")


async def test_the_end_by_length(client: AsyncClient) -> None:
    answer = await client.chat("Count to a hundred.", max_output_tokens=3)
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage.output_tokens == 3


async def test_a_stop_sequence(client: AsyncClient) -> None:
    answer = await client.chat(CAPITAL, temperature=0, stop_sequences=["France"])
    assert answer.text == "The capital of "
    assert answer.finish_reason is FinishReason.STOP


async def test_log_probabilities(client: AsyncClient) -> None:
    whole = await client.chat(CAPITAL, temperature=0, max_output_tokens=4, top_logprobs=2)
    stream = client.stream_chat(CAPITAL, temperature=0, max_output_tokens=4, top_logprobs=2)
    streamed = (await stream.result()).logprobs
    assert len(whole.logprobs) == 4
    assert "".join(one.token for one in whole.logprobs) == whole.text
    assert [one.token for one in streamed] == [one.token for one in whole.logprobs]
    for one in (*whole.logprobs, *streamed):
        assert one.logprob <= 0
        assert one.top[0].token == one.token
        assert len(one.top) == 2
        assert sum(math.exp(other.logprob) for other in one.top) < 1.01


async def test_a_prompt_that_is_too_long(client: AsyncClient) -> None:
    with pytest.raises(modelrouter.ContextLengthExceeded):
        await client.chat("word " * CONTEXT)
    with pytest.raises(modelrouter.ContextLengthExceeded):
        await client.stream_chat("word " * CONTEXT).result()


async def test_a_model_that_vllm_does_not_serve(client: AsyncClient) -> None:
    with pytest.raises(modelrouter.UpstreamMisconfigured) as caught:
        await client.chat(CAPITAL, model="missing")
    assert caught.value.reason == "UPSTREAM_MODEL_MISSING"


async def test_an_adapter_is_a_model(client: AsyncClient) -> None:
    bare = await client.chat(CAPITAL, temperature=0, max_output_tokens=8)
    adapted = await client.chat(CAPITAL, model="adapted", temperature=0, max_output_tokens=8)
    assert adapted.text
    assert adapted.text != bare.text


async def test_tools(client: AsyncClient) -> None:
    """The model is too small to choose well: what is required of it, vLLM's grammar enforces."""
    options: ChatOptions = {
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0,
        "max_output_tokens": 80,
    }
    asked = "How is the weather in Paris?"
    for answer in (
        await client.chat(asked, **options),
        await client.stream_chat(asked, **options).result(),
    ):
        (call,) = answer.tool_calls
        assert answer.finish_reason is FinishReason.TOOL_CALLS
        assert call.id
        assert call.name == "weather"
        assert set(call.arguments) == {"city"}
        assert not answer.text


async def test_the_turn_after_a_tool(client: AsyncClient) -> None:
    asked = chat_pb2.ToolCall(id="c1", name="weather", arguments_json='{"city": "Paris"}')
    call = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, content=[chat_pb2.ContentPart(tool_call=asked)])
    turns = [user("How is the weather in Paris?"), call, tool_result("c1", "Sunny, 21 degrees")]
    answer = await client.chat(turns, tools=[WEATHER], temperature=0, max_output_tokens=8)
    assert answer.text


async def test_embeddings(client: AsyncClient) -> None:
    inputs = ["A cat sleeps.", "A kitten is asleep.", "Revenue grew in the third quarter."]
    answer = await client.embed(inputs)
    cat, kitten, revenue = answer.vectors
    assert answer.dimensions == 384
    assert np.allclose(np.linalg.norm(answer.vectors, axis=1), 1, atol=1e-3)
    assert cat @ kitten > 0.6
    assert cat @ revenue < 0.3
    assert answer.usage.input_tokens > 10


async def test_many_embeddings_keep_their_order(client: AsyncClient) -> None:
    inputs = [f"The number {number}" for number in range(40)]
    together = await client.embed(inputs)
    (alone,) = await client.embed(inputs[17])
    assert int(np.argmax(together.vectors @ alone)) == 17


async def test_a_text_that_is_too_long_to_embed(client: AsyncClient) -> None:
    with pytest.raises(modelrouter.ContextLengthExceeded):
        await client.embed(["short", "word " * 2000])
