"""Google's Gemini API in its native REST form: chat, streams, embeddings.

``POST …:generateContent``, ``…:streamGenerateContent?alt=sse``, ``…:batchEmbedContents``, ``GET models``.
This file is the door; what goes through it is built and read in the ``_gemini_*`` files. The key travels in
a header, never in a URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from router_server.core.provider import Capability, ProviderKind, Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import Answer, Embeddings, StreamItem
from router_server.providers._by_name import one_or_the_other
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._failure import well_if_ok
from router_server.providers._gemini_answer import read_answer
from router_server.providers._gemini_contents import KIND_NAME
from router_server.providers._gemini_embed import MAX_BATCH, embed_body, read_embeddings
from router_server.providers._gemini_errors import read_error
from router_server.providers._gemini_models import model_path
from router_server.providers._gemini_request import chat_body
from router_server.providers._gemini_stream import StreamedAnswer, events_of
from router_server.providers._http import MAX_BODY_BYTES, HttpClient
from router_server.providers._sse import EventParser

_NO_SUCH_QUESTION: Final = frozenset({404, 405})


def _key_of_environment() -> SecretStr:
    return SecretStr(os.environ.get("GEMINI_API_KEY", ""))


class GeminiSettings(BaseModel):
    """What the configuration says of a ``gemini`` provider.

    Attributes:
        api_key: the credential; GEMINI_API_KEY's value where it is not written.
        base_url: the API's address, its version included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    api_key: SecretStr = Field(default_factory=_key_of_environment, validate_default=True)
    base_url: str = "https://generativelanguage.googleapis.com/v1beta"

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value().strip()
        if not text:
            raise ValueError("is missing: write it, or set GEMINI_API_KEY")
        if not (text.isascii() and text.isprintable()):
            raise ValueError("holds characters that no key has; was it copied whole?")
        return SecretStr(text)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str) -> str:
        parse_endpoint(base_url)
        return base_url


class GeminiProvider:
    """One key at one Gemini endpoint."""

    max_embed_batch = MAX_BATCH

    def __init__(self, settings: GeminiSettings, surroundings: Surroundings) -> None:
        self._retry_after_cap = surroundings.retry_after_cap
        self._http = HttpClient(
            parse_endpoint(settings.base_url),
            {"x-goog-api-key": settings.api_key.get_secret_value()},
            surroundings,
            read_error,
        )

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port."""
        return self._http.address

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer.

        Raises:
            UpstreamError: with the class of the failure.
        """
        path = f"{model_path(call.model)}:generateContent"
        body = await self._http.post(path, chat_body(call), call.headers, call.connect_timeout)
        return read_answer(body, call.model, self._retry_after_cap)

    async def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:
        """Yield what each read that completed an event brought: one of comments alone is silence.

        Raises:
            UpstreamError: with the class of the failure.
        """
        path = f"{model_path(call.model)}:streamGenerateContent?alt=sse"
        exchange = await self._http.open(path, chat_body(call), call.headers, call.connect_timeout)
        answer, parser = StreamedAnswer(call.model, self._retry_after_cap), EventParser()
        try:
            if exchange.is_json:
                yield answer.take(events_of(await exchange.read_all(MAX_BODY_BYTES)))
            else:
                while not answer.finished and (chunk := await exchange.read()):
                    if events := parser.feed(chunk):
                        yield answer.take(events)
                if not answer.finished and (events := parser.close()):
                    yield answer.take(events)
            answer.end()
            await exchange.read_farewell()
        finally:
            exchange.close()

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per text; Gemini names no model in its answer.

        Raises:
            UpstreamError: with the class of the failure.
        """
        path = f"{model_path(call.model)}:batchEmbedContents"
        body = await self._http.post(path, embed_body(call), call.headers, call.connect_timeout)
        return read_embeddings(body, len(call.request.inputs), self._retry_after_cap)

    async def check(self) -> bool | None:
        """Ask for the first of the models: it costs nothing, and a bad key is refused."""
        status = await self._http.status("/models?pageSize=1")
        return None if status in _NO_SUCH_QUESTION else well_if_ok(status)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()


_CAPABILITIES: Final = frozenset(
    {
        Capability.CHAT,
        Capability.EMBED,
        Capability.IMAGE_INLINE,
        Capability.IMAGE_URL,
        Capability.AUDIO_INLINE,
        Capability.DOCUMENT_INLINE,
        Capability.DOCUMENT_URL,
        Capability.TOOLS,
        Capability.ALLOWED_TOOLS,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.CHOICE,
        Capability.REASONING_EFFORT,
        Capability.TOP_K,
        Capability.STOP,
        Capability.SEED,
        Capability.PENALTIES,
        Capability.LOGPROBS,
        Capability.EMBED_DIMENSIONS,
        Capability.EMBED_TASK,
    }
)

KIND = ProviderKind(
    name=KIND_NAME,
    settings=GeminiSettings,
    capabilities=_CAPABILITIES,
    able=lambda _settings, model: one_or_the_other(_CAPABILITIES, model),
    create=GeminiProvider,
    summary="Google's Gemini API in its native form, with thinking and its signatures.",
)
