"""The kind ``litellm`` against somebody else's idea of OpenAI: the faults of `llmock`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from llmock.pytest_plugin import LLMock

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.types import DeltaKind, EmbedRequest, FinishReason, Text, Tool, ToolCall
from tests.kinds.litellm_talk import LITELLM_MARKS, provider_at
from tests.providers.openai_talk import call, stream

pytestmark = LITELLM_MARKS

MODEL = "openai/gpt-4o-mini"
WEATHER = Tool("get_weather", "The weather", '{"type": "object", "properties": {"city": {"type": "string"}}}')


@pytest.fixture
async def provider(llmock: LLMock) -> AsyncIterator[Provider]:
    made = provider_at(llmock.base_url("openai"))
    yield made
    await made.close()


async def test_an_answer_and_a_stream(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("Paris is the capital of France.", times=2)
    answer = await provider.chat(call(model=MODEL))
    assert answer.message.content == (Text("Paris is the capital of France."),)
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    whole = await stream(provider, call(model=MODEL))
    assert whole.parts == [(DeltaKind.TEXT, "Paris is the capital of France.", "", "")]
    assert llmock.last_request.model == "gpt-4o-mini"


async def test_a_tool_call(llmock: LLMock, provider: Provider) -> None:
    llmock.call_tool("get_weather", {"city": "Rome"}, times=2)
    answer = await provider.chat(call(model=MODEL, tools=(WEATHER,)))
    whole = await stream(provider, call(model=MODEL, tools=(WEATHER,)))
    [part] = answer.message.content
    assert isinstance(part, ToolCall)
    [(kind, arguments, _, name)] = whole.parts
    assert (kind, name, arguments) == (DeltaKind.TOOL_CALL, part.name, part.arguments_json)
    assert answer.finish_reason is whole.finish is FinishReason.TOOL_CALLS


async def test_embeddings(provider: Provider) -> None:
    asked = UpstreamEmbed("openai/text-embedding-3-small", EmbedRequest("r", ("a", "b")))
    vectors = (await provider.embed(asked)).vectors
    assert (vectors.dimensions, vectors.rows) == (1536, 2)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, Outcome.INVALID_REQUEST),
        (401, Outcome.AUTH),
        (404, Outcome.MODEL_MISSING),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.UNAVAILABLE),
        (503, Outcome.UNAVAILABLE),
    ],
)
async def test_failures(
    llmock: LLMock, provider: Provider, status: int, outcome: Outcome, *, streamed: bool
) -> None:
    llmock.fail(status)
    with pytest.raises(UpstreamError) as caught:
        await (stream(provider, call(model=MODEL)) if streamed else provider.chat(call(model=MODEL)))
    assert caught.value.outcome is outcome
