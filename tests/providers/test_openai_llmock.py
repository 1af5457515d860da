"""The kind ``openai`` against somebody else's idea of OpenAI: the faults of `llmock`."""

from collections.abc import AsyncIterator

import pytest
from llmock.pytest_plugin import LLMock

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, Surroundings, UpstreamEmbed
from router_server.core.types import DeltaKind, EmbedRequest, FinishReason, Text, Tool, ToolCall
from router_server.providers.openai import KIND
from tests.providers.checks import verdict_of
from tests.providers.openai_talk import call, stream

WEATHER = Tool("get_weather", "The weather", '{"type": "object", "properties": {"city": {"type": "string"}}}')


@pytest.fixture
async def provider(llmock: LLMock) -> AsyncIterator[Provider]:
    """The fixture of llmock has set OPENAI_BASE_URL and OPENAI_API_KEY: no setting is needed."""
    settings = KIND.settings()
    assert settings.base_url == llmock.base_url("openai")
    made = KIND.create(settings, Surroundings(name="x"))
    yield made
    await made.close()


async def test_an_answer(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("Paris.")
    answer = await provider.chat(call(model="gpt-4o-mini"))
    assert answer.message.content == (Text("Paris."),)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    assert llmock.last_request.model == "gpt-4o-mini"


async def test_a_stream(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("Paris is the capital of France.")
    whole = await stream(provider)
    assert whole.parts == [(DeltaKind.TEXT, "Paris is the capital of France.", "", "")]
    assert whole.finish is FinishReason.STOP
    llmock.assert_resilient()


async def test_a_tool_call(llmock: LLMock, provider: Provider) -> None:
    llmock.call_tool("get_weather", {"city": "Rome"}, times=2)
    answer = await provider.chat(call(tools=(WEATHER,)))
    whole = await stream(provider, call(tools=(WEATHER,)))
    [part] = answer.message.content
    assert isinstance(part, ToolCall)
    [(kind, arguments, _, name)] = whole.parts
    assert (kind, name, arguments) == (DeltaKind.TOOL_CALL, part.name, part.arguments_json)
    assert answer.finish_reason is whole.finish is FinishReason.TOOL_CALLS


async def test_embeddings_as_numbers(provider: Provider) -> None:
    embeddings = await provider.embed(UpstreamEmbed("text-embedding-3-small", EmbedRequest("r", ("a", "b"))))
    assert (embeddings.vectors.dimensions, embeddings.vectors.rows) == (1536, 2)


async def test_the_active_check(llmock: LLMock, provider: Provider) -> None:
    assert await provider.check() is True
    llmock.outage()
    assert await verdict_of(provider) is False


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
async def test_failures(llmock: LLMock, provider: Provider, status: int, outcome: Outcome) -> None:
    llmock.fail(status)
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(call())
    assert caught.value.outcome is outcome
    assert len(llmock.requests) == 1, "the provider does not try again: the core decides that"


async def test_retry_after(llmock: LLMock, provider: Provider) -> None:
    llmock.rate_limit(retry_after=7)
    with pytest.raises(UpstreamError) as caught:
        await stream(provider)
    assert (caught.value.outcome, caught.value.retry_after) == (Outcome.RATE_LIMITED, 7.0)


async def test_a_prompt_that_is_too_long(llmock: LLMock, provider: Provider) -> None:
    llmock.context_overflow()
    with pytest.raises(UpstreamError) as caught:
        await stream(provider)
    assert caught.value.outcome is Outcome.CONTEXT_LENGTH


async def test_a_stream_that_is_cut(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("one two three four five six").disconnect(after_chunks=2)
    with pytest.raises(UpstreamError) as caught:
        await stream(provider)
    assert caught.value.outcome is Outcome.UNAVAILABLE


async def test_a_stream_that_ends_early(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("one two three four five six").truncate(after_chunks=2)
    with pytest.raises(UpstreamError, match="no_finish_reason"):
        await stream(provider)


async def test_a_chunk_that_is_not_json(llmock: LLMock, provider: Provider) -> None:
    llmock.reply("one two three four five six").corrupt(after_chunks=2)
    with pytest.raises(UpstreamError, match="not_json"):
        await stream(provider)
