from collections.abc import AsyncIterator

import pytest
from llmock.pytest_plugin import LLMock

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, UpstreamChat
from router_server.core.types import (
    ChatRequest,
    Delta,
    FinishReason,
    Message,
    Role,
    StreamItem,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from tests.providers.asks import ask, finish_in, items_of, read_into, text_in, usage_in
from tests.providers.gemini_upstream import failure_of, make


@pytest.fixture
async def mocked(llmock: LLMock) -> AsyncIterator[Provider]:
    provider = make(f"{llmock.base_url('gemini')}/v1beta", key="llmock-test-key")
    yield provider
    await provider.close()


async def test_llmock_answers(llmock: LLMock, mocked: Provider) -> None:
    llmock.reply("Paris it is.", times=2)

    answer = await mocked.chat(ask("Capital of France?", model="gemini-2.5-pro", system="Be brief."))
    items = await items_of(mocked.stream(ask("Capital of France?", model="gemini-2.5-pro")))

    assert answer.message.content == (Text("Paris it is."),)
    assert text_in(items) == "Paris it is."
    assert finish_in(items) is answer.finish_reason is FinishReason.STOP
    assert answer.usage is not None
    assert answer.usage.output_tokens == usage_in(items).output_tokens > 0
    assert await mocked.check() is True
    llmock.assert_resilient()


async def test_llmock_calls_a_tool_and_takes_its_result(llmock: LLMock, mocked: Provider) -> None:
    llmock.call_tool("weather", {"city": "Oslo"}, times=2)
    question = Message(Role.USER, (Text("Weather in Oslo?"),))
    request = ChatRequest("route", (question,), tools=(Tool("weather", "", '{"type": "object"}'),))

    answer = await mocked.chat(UpstreamChat("gemini-2.5-pro", request))
    items = await items_of(mocked.stream(UpstreamChat("gemini-2.5-pro", request)))

    [call] = [part for part in answer.message.content if isinstance(part, ToolCall)]
    [delta] = [item for item in items if isinstance(item, Delta) and item.tool_name]
    assert (call.name, call.arguments_json) == (delta.tool_name, delta.text) == ("weather", '{"city":"Oslo"}')
    assert finish_in(items) is answer.finish_reason is FinishReason.TOOL_CALLS

    llmock.reply("It rains.")
    result = Message(Role.TOOL, (ToolResult(call.id, (Text("rain"),)),))
    request = ChatRequest("route", (question, answer.message, result), tools=request.tools)
    assert (await mocked.chat(UpstreamChat("gemini-2.5-pro", request))).message.content == (
        Text("It rains."),
    )


async def test_llmock_fails_in_every_way(llmock: LLMock, mocked: Provider) -> None:
    llmock.rate_limit(retry_after=2.0)
    limited = await failure_of(mocked)
    llmock.context_overflow()
    too_long = await failure_of(mocked)
    llmock.fail(503)
    down = await failure_of(mocked)

    assert (limited.outcome, limited.retry_after) == (Outcome.RATE_LIMITED, 2.0)
    assert (too_long.outcome, down.outcome) == (Outcome.CONTEXT_LENGTH, Outcome.UNAVAILABLE)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("truncate", Outcome.MALFORMED),
        ("corrupt", Outcome.MALFORMED),
        ("disconnect", Outcome.UNAVAILABLE),
    ],
)
async def test_llmock_breaks_a_stream(llmock: LLMock, mocked: Provider, fault: str, outcome: Outcome) -> None:
    llmock.reply("one two three four five")
    getattr(llmock, fault)(after_chunks=2)
    items: list[StreamItem] = []

    with pytest.raises(UpstreamError) as caught:
        await read_into(items, mocked.stream(ask("Count.", model="gemini-2.5-pro")))

    assert caught.value.outcome is outcome
    assert "one two three four five".startswith(text_in(items))
