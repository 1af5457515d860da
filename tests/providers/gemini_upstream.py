"""A Gemini upstream's words in one line, and a provider that asks it."""

from typing import Any

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.provider import Provider, Surroundings
from router_server.providers.gemini import KIND
from tests.providers.asks import ask

KEY = "AIza-very-secret"
MODEL = "gemini-3-flash"
UNARY = f"/v1/models/{MODEL}:generateContent"
STREAM = f"/v1/models/{MODEL}:streamGenerateContent?alt=sse"


def said(text: str, finish: str = "", usage: Any = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "v", **({"usageMetadata": usage} if usage else {})}


WHOLE = said("Hello", "STOP", {"promptTokenCount": 2, "candidatesTokenCount": 1})


def make(base_url: str, key: str = KEY) -> Provider:
    return KIND.create(KIND.settings(api_key=key, base_url=base_url), Surroundings("gemini"))


async def failure_of(provider: Provider) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(ask("Hi", model=MODEL))
    return caught.value
