"""The kind ``openai``: OpenAI, and whatever speaks like it at another base_url.

Tokens come over aiohttp and msgspec; see `_openai_wire`. Refuses to know what only vLLM adds.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from router_server.core.provider import (
    Capability,
    Provider,
    ProviderKind,
    Surroundings,
    Take,
    UpstreamChat,
    UpstreamEmbed,
)
from router_server.core.types import Answer, Embeddings, StreamItem
from router_server.providers._by_name import embedding_if_called_so, one_or_the_other
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._http import HttpClient
from router_server.providers._openai_check import Check, CompatibleCheck, OpenAICheck
from router_server.providers._openai_wire import OpenAIWire
from router_server.providers._openai_wire_errors import read_error
from router_server.providers._openai_wire_request import Dialect
from router_server.providers._settings import ApiKey, HttpUrl, bearer

_OPENAI_URL: Final = "https://api.openai.com/v1"
_OPENAI_DOMAIN: Final = "openai.com"
_MAX_EMBED_BATCH: Final = 2048
"""OpenAI's own limit of inputs in one embedding request."""


def _from_environment(name: str) -> Callable[[], str | None]:
    return lambda: os.environ.get(name) or None


def _key_from_environment() -> SecretStr | None:
    key = os.environ.get("OPENAI_API_KEY")
    return SecretStr(key) if key else None


class Settings(BaseModel):
    """What the configuration says of an ``openai`` provider.

    As with OpenAI's own package, what is not set comes from ``OPENAI_API_KEY``, ``OPENAI_BASE_URL``,
    ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``. That includes the key where base_url names another server;
    an empty api_key keeps it back.

    Attributes:
        api_key: the credential; only OpenAI's own hosts insist on one.
        base_url: below it are /chat/completions, /embeddings and /models.
        organization: the account's organization, where a key belongs to several.
        project: the account's project, likewise.
        max_tokens_field: the name under which a limit of tokens is sent; by default
            ``max_completion_tokens`` for OpenAI's own hosts, whose reasoning models refuse the other, and
            ``max_tokens`` for all others, many of which do not know the new name.
        stream_usage: whether streams ask for their usage; false for servers that refuse the question.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    api_key: ApiKey | None = Field(default_factory=_key_from_environment)
    base_url: HttpUrl = Field(default_factory=lambda: os.environ.get("OPENAI_BASE_URL") or _OPENAI_URL)
    organization: str | None = Field(default_factory=_from_environment("OPENAI_ORG_ID"))
    project: str | None = Field(default_factory=_from_environment("OPENAI_PROJECT_ID"))
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    stream_usage: bool = True

    @property
    def is_openai(self) -> bool:
        """Whether the base_url is OpenAI's own."""
        host = parse_endpoint(self.base_url).base.host or ""
        return host == _OPENAI_DOMAIN or host.endswith(f".{_OPENAI_DOMAIN}")

    @model_validator(mode="after")
    def _openai_wants_a_key(self) -> Self:
        if self.is_openai and not (self.api_key and self.api_key.get_secret_value()):
            raise ValueError("api_key is missing: set it, or OPENAI_API_KEY in the environment")
        return self


class OpenAIProvider:
    """One account at OpenAI, or one compatible server."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        account = {"OpenAI-Organization": settings.organization, "OpenAI-Project": settings.project}
        named = {name: value for name, value in account.items() if value}
        self._http = HttpClient(
            parse_endpoint(settings.base_url), {**bearer(settings.api_key), **named}, surroundings, read_error
        )
        self._wire = OpenAIWire(self._http, _dialect(settings))
        self._check = _check(settings, self._http, named)

    @property
    def address(self) -> tuple[str, int | None]:
        """Host and port of the base_url."""
        return self._http.address

    @property
    def max_embed_batch(self) -> int:
        """How many inputs one embed call takes."""
        return _MAX_EMBED_BATCH

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer."""
        return await self._wire.chat(call)

    def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], Take | None]:
        """Yield the answer as it arrives."""
        return self._wire.stream(call)

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector per input, in order."""
        return await self._wire.embed(call)

    async def check(self) -> bool | None:
        """Ask for the list of models."""
        return await self._check.ask()

    async def close(self) -> None:
        """Close every connection."""
        await self._check.close()
        await self._http.close()


def _dialect(settings: Settings) -> Dialect:
    own = settings.is_openai
    return Dialect(
        max_tokens_field=settings.max_tokens_field or ("max_completion_tokens" if own else "max_tokens"),
        developer_role=own,
        allowed_tools=own,
        stream_usage=settings.stream_usage,
    )


def _check(settings: Settings, http: HttpClient, headers: dict[str, str]) -> Check:
    if not settings.is_openai:
        return CompatibleCheck(http)
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return OpenAICheck(settings.base_url, key, headers)


def _create(settings: Settings, surroundings: Surroundings) -> Provider:
    return OpenAIProvider(settings, surroundings)


_CAPABILITIES: Final = frozenset(
    {
        Capability.CHAT,
        Capability.EMBED,
        Capability.IMAGE_INLINE,
        Capability.IMAGE_URL,
        Capability.AUDIO_INLINE,
        Capability.DOCUMENT_INLINE,
        Capability.TOOLS,
        Capability.PARALLEL_TOOL_CONTROL,
        Capability.ALLOWED_TOOLS,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.REASONING_EFFORT,
        Capability.STOP,
        Capability.SEED,
        Capability.PENALTIES,
        Capability.LOGPROBS,
        Capability.EMBED_DIMENSIONS,
    }
)


def _able(settings: Settings, model: str) -> frozenset[Capability]:
    if settings.is_openai:
        return one_or_the_other(_CAPABILITIES, model)
    return embedding_if_called_so(_CAPABILITIES, model)


KIND: Final = ProviderKind(
    name="openai",
    settings=Settings,
    capabilities=_CAPABILITIES,
    able=_able,
    create=_create,
    summary="OpenAI, and any server that speaks like it at another base_url.",
)
