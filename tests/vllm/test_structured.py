"""Answers that vLLM binds to a shape: the model, left alone, would keep to none of them."""

from __future__ import annotations

import json
import re

import pytest

import modelrouter
from modelrouter import AsyncClient, choice, grammar, json_object, json_schema, regex
from modelrouter.options import ChatOptions
from modelrouter.v1 import chat_pb2
from tests.vllm.conftest import CAPITAL

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "inhabitants": {"type": "integer", "minimum": 0, "maximum": 99},
        "coast": {"type": "boolean"},
    },
    "required": ["city", "inhabitants", "coast"],
    "additionalProperties": False,
}


async def answered(client: AsyncClient, wanted: chat_pb2.ResponseFormat) -> str:
    """Return the answer, which is the same streamed and whole."""
    options: ChatOptions = {"response_format": wanted, "temperature": 0, "max_output_tokens": 60}
    whole = await client.chat(CAPITAL, **options)
    streamed = await client.stream_chat(CAPITAL, **options).result()
    assert streamed.text == whole.text
    return whole.text


async def test_a_schema(client: AsyncClient) -> None:
    answer = json.loads(await answered(client, json_schema("city", SCHEMA)))
    assert list(answer) == ["city", "inhabitants", "coast"]
    assert isinstance(answer["inhabitants"], int)
    assert isinstance(answer["coast"], bool)


async def test_any_object(client: AsyncClient) -> None:
    assert isinstance(json.loads(await answered(client, json_object())), dict)


async def test_a_regular_expression(client: AsyncClient) -> None:
    assert re.fullmatch(r"[A-Z]{3}-\d{4}", await answered(client, regex(r"[A-Z]{3}-\d{4}")))


async def test_a_grammar(client: AsyncClient) -> None:
    text = await answered(client, grammar('root ::= [0-9] " + " [0-9] " = " [0-9] [0-9]'))
    assert re.fullmatch(r"\d \+ \d = \d\d", text)


async def test_a_choice(client: AsyncClient) -> None:
    assert await answered(client, choice("lion", "crocodile")) in {"lion", "crocodile"}


@pytest.mark.parametrize(
    "wanted", [regex("["), grammar("root ::= ["), json_schema("s", {"type": "no such type"})]
)
async def test_a_shape_that_is_none_is_the_callers_mistake(
    client: AsyncClient, wanted: chat_pb2.ResponseFormat
) -> None:
    with pytest.raises(modelrouter.InvalidRequest):
        await client.chat(CAPITAL, response_format=wanted, max_output_tokens=5)
