"""A provider of the kind ``openai`` with a key, and failures that must not tell it."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.provider import Provider, Surroundings
from router_server.providers.openai import KIND, OpenAIProvider
from tests.providers.openai_talk import call, stream

KEY = "sk-very-secret"


def provider_at(base_url: str, **settings: Any) -> Provider:
    made = KIND.create(KIND.settings(base_url=base_url, api_key=KEY, **settings), Surroundings(name="x"))
    assert isinstance(made, OpenAIProvider)
    return made


async def failure(provider: Provider, **fields: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await stream(provider, call(**fields))
    text = "".join(traceback.format_exception(caught.value))
    assert KEY not in text
    assert "THEIR WORDS" not in text
    return caught.value


def answer_of(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    choice.update({name: more.pop(name) for name in ("logprobs",) if name in more})
    return {"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice], **more}
