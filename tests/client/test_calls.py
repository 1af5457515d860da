"""Calls that are answered: what goes out, what comes back, for both clients."""

from __future__ import annotations

import pytest

from modelrouter import FinishReason, ToolCall, assistant, system, tool, user
from modelrouter.v1 import chat_pb2, common_pb2
from tests.client.scripted import MODELS, ROUTE, USAGE, ScriptedRouter, answer
from tests.client.shells import Shell, opened


async def test_a_simple_call_is_one_line(router: ScriptedRouter, shell: Shell) -> None:
    router.play([answer("Paris.")])

    reply = await shell.chat("What is the capital of France?")

    assert reply.text == "Paris."
    assert str(reply) == "Paris."
    assert reply.finish_reason is FinishReason.STOP
    assert reply.usage == USAGE
    assert reply.route == ROUTE
    assert reply.raw == answer("Paris.")
    sent = router.calls[0].request
    assert sent.model == "chat"
    assert sent.messages == [user("What is the capital of France?")]
    assert not sent.HasField("generation")


async def test_an_answer_goes_back_as_a_turn(router: ScriptedRouter, shell: Shell) -> None:
    router.play([answer("Paris.")])
    first = await shell.chat("What is the capital of France?", model="mine")

    await shell.chat([system("Be brief."), user("France?"), first.message, user("And of Spain?")])

    turns = router.calls[1].request.messages
    assert turns == [system("Be brief."), user("France?"), assistant("Paris."), user("And of Spain?")]
    assert router.calls[0].request.model == "mine"


async def test_every_kind_of_part_is_readable(router: ScriptedRouter, shell: Shell) -> None:
    reply = answer("Let me look.")
    reply.finish_reason = chat_pb2.FINISH_REASON_TOOL_CALLS
    reply.message.content.add(reasoning={"text": "They want weather."})
    reply.message.content.add(tool_call={"id": "c1", "name": "weather", "arguments_json": '{"city": "Rome"}'})
    reply.message.content.add(tool_call={"id": "c2", "name": "now"})
    reply.message.content.add(refusal="Not that.")
    router.play([reply])

    got = await shell.chat("?", tools=[tool("weather", "Look out of the window.")])

    assert got.text == "Let me look."
    assert got.reasoning == "They want weather."
    assert got.refusal == "Not that."
    assert got.finish_reason is FinishReason.TOOL_CALLS
    assert got.tool_calls == (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "now", ""))
    assert got.tool_calls[0].arguments == {"city": "Rome"}
    assert got.tool_calls[1].arguments == {}


@pytest.mark.parametrize("text", ["[1]", "{", "null"])
def test_tool_arguments_that_are_no_object_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        _ = ToolCall("c1", "weather", text).arguments


async def test_an_unknown_finish_reason_is_other(router: ScriptedRouter, shell: Shell) -> None:
    reply = answer("?")
    reply.finish_reason = 99  # type: ignore[assignment]  # a value of a later contract
    router.play([reply])

    assert (await shell.chat("?")).finish_reason is FinishReason.OTHER


async def test_models_lists_the_routes(router: ScriptedRouter, shell: Shell) -> None:
    router.play([MODELS])

    chat, embed = await shell.models()

    assert (chat.name, chat.operations, chat.available) == ("chat", ("chat",), True)
    assert chat.targets == ("local/tiny", "cloud/big")
    assert (embed.name, embed.operations, embed.available) == ("embed", ("embed",), False)


async def test_metadata_goes_along(router: ScriptedRouter, kind: str) -> None:
    router.play([answer("!")])
    async with opened(kind, router.target, api_key="k", metadata={"X-Team": "a", "x-kept": "1"}) as shell:
        await shell.chat("?", metadata={"x-team": "b", "x-request-id": "r-1"})

    seen = router.calls[0].metadata
    assert (seen["x-api-key"], seen["x-team"], seen["x-kept"], seen["x-request-id"]) == ("k", "b", "1", "r-1")


async def test_without_a_timeout_the_server_sees_none(router: ScriptedRouter, shell: Shell) -> None:
    router.play([answer("!")])

    await shell.chat("?")

    assert router.calls[0].time_remaining is None


async def test_a_calls_timeout_wins_over_the_clients(router: ScriptedRouter, kind: str) -> None:
    router.play([answer("!")])
    async with opened(kind, router.target, timeout=1000) as shell:
        await shell.chat("?")
        await shell.chat("?", timeout=50)

    of_client, of_call = (call.time_remaining for call in router.calls)
    # gRPC rounds a deadline up to two digits on its way.
    assert of_client == pytest.approx(1000, rel=0.05)
    assert of_call == pytest.approx(50, rel=0.05)


async def test_a_whole_request_is_taken_as_it_is(router: ScriptedRouter, shell: Shell) -> None:
    router.play([answer("!")])
    request = chat_pb2.ChatRequest(
        model="mine",
        messages=[user("Hello.")],
        generation={"temperature": 0.5, "stop_sequences": ["a"]},
        routing={"priority": 3},
    )

    await shell.chat(request, temperature=0.0, stop_sequences=["b"])

    sent = router.calls[0].request
    assert sent.model == "mine"
    assert sent.generation == chat_pb2.GenerationConfig(temperature=0.0, stop_sequences=["b"])
    assert sent.routing == common_pb2.RoutingOptions(priority=3)
    assert request.generation.temperature == 0.5, "the caller's own request is left alone"
