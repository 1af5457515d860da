"""A scripted model inside the process: latency, token rate and failures as the configuration says.

For trying the router out: what a slow, a rate-limited or a breaking upstream does to callers, with no key
and no network. A token is a word. Refuses to know HTTP: its failures are those that a status means.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import re
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from router_server.core.duration import parse_duration
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
    Vectors,
)
from router_server.providers._conversation import last_user_text, text_of
from router_server.providers._failure import status_failure

_TOKEN = re.compile(r"\s*\S+")
_DURATION = Annotated[float, BeforeValidator(parse_duration)]
_MAX_BATCH = 2048


class MockSettings(BaseModel):
    """How the model behaves.

    Attributes:
        reply: what every chat answers; unset: the model's name and the last user message.
        latency: how long the first token takes, or a whole embed call.
        tokens_per_second: how fast the tokens after the first come; unset: at once.
        fail: which calls fail: ``always``, an HTTP status from 400 to 599 (always, with that status), or a
            rate from 0 to 1; unset: none, or all where ``fail_after_tokens`` is set.
        fail_status: the HTTP status of a failure, where ``fail`` names none.
        fail_after_tokens: a failing chat breaks after this many tokens instead of before the first.
        retry_after: what a failure asks the router to wait.
        seed: of the drawing of ``fail`` as a rate: the same calls in the same order fail alike.
        dimensions: of an embedding, where the caller does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reply: str | None = None
    latency: _DURATION = 0.0
    tokens_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    fail: Literal["always"] | float | None = None
    fail_status: int = Field(default=503, ge=400, le=599)
    fail_after_tokens: int | None = Field(default=None, ge=0)
    retry_after: _DURATION | None = None
    seed: int = 0
    dimensions: int = Field(default=8, ge=1, le=4096)

    @field_validator("fail", mode="before")
    @classmethod
    def _says_which(cls, fail: object) -> object:
        if fail is None or fail == "always":
            return fail
        if (
            isinstance(fail, int | float)
            and not isinstance(fail, bool)
            and (0 <= fail <= 1 or _is_status(fail))
        ):
            return fail
        raise ValueError("write always, an HTTP status from 400 to 599, or a rate from 0 to 1")

    @property
    def failure_rate(self) -> float:
        """The share of calls that fail, 0 to 1."""
        if self.fail is None:
            return 0.0 if self.fail_after_tokens is None else 1.0
        return self.fail if isinstance(self.fail, float) and self.fail <= 1 else 1.0

    @property
    def failure_status(self) -> int:
        """The HTTP status that a failing call fails with."""
        return int(self.fail) if isinstance(self.fail, float) and self.fail > 1 else self.fail_status


@dataclass(frozen=True, slots=True)
class _Script:
    """One chat answer, decided before its first token."""

    tokens: tuple[str, ...]
    finish: FinishReason
    prompt_tokens: int
    breaks_after: int | None

    def usage(self, said: int) -> Usage:
        return Usage(input_tokens=self.prompt_tokens, output_tokens=said)


class MockProvider:
    """Plays its settings; deterministic but for the order in which calls arrive."""

    address: tuple[str, int | None] = ("", None)
    max_embed_batch = _MAX_BATCH

    def __init__(self, settings: MockSettings, retry_after_cap: float) -> None:
        self._settings = settings
        self._draws = random.Random(settings.seed)  # noqa: S311 - a script, not a secret
        asked = settings.retry_after
        self._retry_after = None if asked is None else min(asked, retry_after_cap)

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole reply once its last token would have come."""
        script = self._script(call)
        said = len(script.tokens) if script.breaks_after is None else script.breaks_after
        started = self._now()
        await self._until(started, max(0, said - 1))
        if script.breaks_after is not None:
            raise self._broken(script)
        message = Message(Role.ASSISTANT, (Text("".join(script.tokens)),))
        return Answer(message, script.finish, script.usage(said), call.model)

    async def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:
        """Yield the reply token by token, at the scripted pace."""
        script = self._script(call)
        started = self._now()
        for position, token in enumerate(script.tokens[: script.breaks_after]):
            await self._until(started, position)
            yield (Delta(0, DeltaKind.TEXT, token),)
        if script.breaks_after is not None:
            await self._until(started, max(0, script.breaks_after - 1))
            raise self._broken(script)
        yield (Finish(script.finish), Report(script.usage(len(script.tokens)), call.model))

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return unit vectors that depend on the text alone."""
        fails = self._fails()
        await asyncio.sleep(self._settings.latency)
        if fails:
            raise self._refused()
        dimensions = call.request.dimensions or self._settings.dimensions
        data = b"".join(_vector(text, dimensions) for text in call.request.inputs)
        usage = Usage(input_tokens=sum(len(_TOKEN.findall(text)) for text in call.request.inputs))
        return Embeddings(Vectors(dimensions, data), usage, call.model)

    async def check(self) -> bool | None:
        """Return False where every call is refused."""
        return self._settings.failure_rate < 1 or self._settings.fail_after_tokens is not None

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    def _script(self, call: UpstreamChat) -> _Script:
        fails = self._fails()
        if fails and self._settings.fail_after_tokens is None:
            return _Script((), FinishReason.OTHER, 0, breaks_after=0)
        reply = self._settings.reply
        if reply is None:
            reply = f"This is {call.model}, a mock. You said: {last_user_text(call.messages)}"
        tokens = tuple(_TOKEN.findall(reply.removeprefix(call.continuation or "")))
        limit = call.request.generation.max_output_tokens
        spoken = tokens[:limit]
        return _Script(
            spoken,
            FinishReason.STOP if len(spoken) == len(tokens) else FinishReason.LENGTH,
            sum(len(_TOKEN.findall(text_of(message))) for message in call.messages),
            breaks_after=self._break_point(spoken) if fails else None,
        )

    def _break_point(self, tokens: Sequence[str]) -> int:
        return min(self._settings.fail_after_tokens or 0, len(tokens))

    def _fails(self) -> bool:
        # random() is below 1, so a rate of 1 always fails and a rate of 0 never does.
        return self._draws.random() < self._settings.failure_rate

    def _broken(self, script: _Script) -> UpstreamError:
        if not script.breaks_after:
            return self._refused()
        usage = script.usage(script.breaks_after)
        return UpstreamError(Outcome.UNAVAILABLE, "reset", retry_after=self._retry_after, usage=usage)

    def _refused(self) -> UpstreamError:
        return status_failure(self._settings.failure_status, retry_after=self._retry_after)

    async def _until(self, started: float, position: int) -> None:
        """Wait until token ``position`` is due, counted from the start so that no delay adds up."""
        rate = self._settings.tokens_per_second
        due = started + self._settings.latency + (position / rate if rate else 0.0)
        await asyncio.sleep(max(0.0, due - self._now()))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _vector(text: str, dimensions: int) -> bytes:
    stream = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    values = [word / 2**31 for word in struct.unpack(f"<{dimensions}i", stream)]
    length = math.hypot(*values) or 1.0
    return struct.pack(f"<{dimensions}f", *(value / length for value in values))


def _is_status(number: float) -> bool:
    return 400 <= number <= 599 and number == int(number)  # noqa: PLR2004 - the error statuses of HTTP


def _create(settings: MockSettings, surroundings: Surroundings) -> MockProvider:
    return MockProvider(settings, surroundings.retry_after_cap)


KIND = ProviderKind(
    name="mock",
    settings=MockSettings,
    capabilities=frozenset(
        {Capability.CHAT, Capability.CONTINUATION, Capability.EMBED, Capability.EMBED_DIMENSIONS}
    ),
    create=_create,
    summary="Scripted latency, token rate and failures, in process: for trying the router out.",
)
