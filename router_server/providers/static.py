"""Prepared content instead of a model: the last resort of a route, when a polite sentence beats an error.

Refuses to know anything of the request but the last thing the user said.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Capability, ProviderKind, Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import (
    Answer,
    Delta,
    DeltaKind,
    Embeddings,
    Finish,
    FinishReason,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Usage,
)
from router_server.providers._conversation import last_user_text


class PreparedAnswer(BaseModel):
    """What to say when the last user message matches ``match``, a regular expression found anywhere in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str
    content: str = Field(min_length=1)

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return pattern


class StaticSettings(BaseModel):
    """What is said.

    Attributes:
        content: the answer where none of ``answers`` matches.
        answers: prepared answers, each a regular expression ``match`` and a ``content``, tried in order
            against the last user message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = Field(min_length=1)
    answers: tuple[PreparedAnswer, ...] = ()


class StaticProvider:
    """Says what was prepared, at once and free of charge."""

    address: tuple[str, int | None] = ("", None)
    max_embed_batch = 1

    def __init__(self, settings: StaticSettings) -> None:
        self._default = settings.content
        self._answers = tuple((re.compile(a.match), a.content) for a in settings.answers)

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the prepared content; it never fails."""
        message = Message(Role.ASSISTANT, (Text(self._content(call)),))
        return Answer(message, FinishReason.STOP, Usage(), call.model)

    async def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:
        """Yield the prepared content as one delta."""
        yield (
            Delta(0, DeltaKind.TEXT, self._content(call)),
            Finish(FinishReason.STOP),
            Report(Usage(), call.model),
        )

    async def embed(self, call: UpstreamEmbed) -> Embeddings:  # noqa: ARG002 - the protocol's signature
        """Refuse: no vector can be prepared for a text that nobody has seen."""
        raise UpstreamError(Outcome.INVALID_REQUEST, "embed_unsupported")

    async def check(self) -> bool | None:
        """Return True: there is nothing that could be unwell."""
        return True

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    def _content(self, call: UpstreamChat) -> str:
        said = last_user_text(call.messages)
        return next((content for pattern, content in self._answers if pattern.search(said)), self._default)


def _create(settings: StaticSettings, surroundings: Surroundings) -> StaticProvider:  # noqa: ARG001 - the signature of every kind
    return StaticProvider(settings)


KIND = ProviderKind(
    name="static",
    settings=StaticSettings,
    capabilities=frozenset({Capability.CHAT}),
    create=_create,
    summary="Prepared content, chosen by regular expressions: the last resort of a route.",
)
