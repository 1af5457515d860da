"""The model built into the package: a demonstration that needs no key, no GPU and no network.

A chat model of 135 million parameters and a static embedding model, both in this process. They show that
a client, a route and a deployment work; they know little, and never stand in for a provider that failed.
The parts: ``_embedded_weights`` finds and converts, ``_embedded_engine`` runs, ``_embedded_wire`` and
``_embedded_constraint`` translate, ``_embedded_vectors`` embeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Capability, ProviderKind, Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import (
    Answer,
    Embeddings,
    Finish,
    Message,
    Report,
    Role,
    StreamItem,
    Text,
    Usage,
    Vectors,
)
from router_server.providers import SetupError
from router_server.providers._embedded_weights import INSTALL_EXTRA, find_source, prepare
from router_server.providers._embedded_wire import CHAT_MODEL, assemble, body_of, read
from router_server.providers._loading import Loading

if TYPE_CHECKING:  # the libraries are an extra, and importing them takes longer than the rest of a start
    from router_server.providers._embedded_engine import Engine
    from router_server.providers._embedded_vectors import VectorTable

__all__ = ["CHAT_MODEL", "EMBEDDING_MODEL", "KIND", "EmbeddedProvider", "EmbeddedSettings", "prepare"]

EMBEDDING_MODEL: Final = "wordllama-256"

_DIMENSIONS: Final = (256, 128, 64)
"""The whole vector, and the lengths that it was trained to be cut to."""
_TRAINED_CONTEXT: Final = 8192
_WHAT: Final = "the built-in model"
_log = logging.getLogger(__name__)


class EmbeddedSettings(BaseModel):
    """How much of the machine the model takes.

    Attributes:
        threads: processor threads of the chat model; unset: one for every core.
        slots: how many chats are answered at once; more of them wait.
        context: tokens of one chat, prompt and answer together; memory is slots x context x 23 kB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int | None = Field(default=None, ge=1, le=256)
    slots: int = Field(default=4, ge=1, le=64)
    context: int = Field(default=2048, ge=256, le=_TRAINED_CONTEXT)


class EmbeddedProvider:
    """Loads what its targets use in the background, the rest when it is first asked for."""

    address: tuple[str, int | None] = ("", None)
    max_embed_batch = 1024

    def __init__(self, settings: EmbeddedSettings, models: Sequence[str]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedded")
        self._engine = Loading(self._thread, lambda: _load_engine(settings), _WHAT)
        self._table = Loading(self._thread, _load_table, _WHAT)
        parts: dict[str, Loading[Engine] | Loading[VectorTable]] = {
            CHAT_MODEL: self._engine,
            EMBEDDING_MODEL: self._table,
        }
        self._used = tuple(part for model, part in parts.items() if model in models)
        for part in self._used:
            part.start()

    async def chat(self, call: UpstreamChat) -> Answer:
        """Return the whole answer; being cancelled stops the generation."""
        async with aclosing(self.stream(call)) as batches:
            items = [item async for batch in batches for item in batch]
        text, logprobs = assemble(items)
        (finish,) = (item for item in items if isinstance(item, Finish))
        usage = next((item.usage for item in items if isinstance(item, Report) and item.usage), Usage())
        message = Message(Role.ASSISTANT, (Text(text),))
        return Answer(message, finish.reason, usage, CHAT_MODEL, logprobs)

    async def stream(self, call: UpstreamChat) -> AsyncGenerator[Sequence[StreamItem], None]:
        """Yield the answer token by token; closing the iterator stops the generation."""
        _require(call.model, CHAT_MODEL)
        body = body_of(call)
        engine = await self._engine.get()
        top = call.request.generation.top_logprobs or 0
        finished = False
        try:
            async with aclosing(engine.generate(body)) as batches:
                async for batch in batches:
                    items = [item for chunk in batch for item in read(chunk, top)]
                    finished = finished or any(isinstance(item, Finish) for item in items)
                    yield items
        except ValueError:  # its text may quote the request
            raise UpstreamError(Outcome.INVALID_REQUEST, "refused_by_engine") from None
        except RuntimeError:
            raise UpstreamError(Outcome.UNAVAILABLE, "engine_failed") from None
        if not finished:
            raise UpstreamError(Outcome.MALFORMED, "no_finish_reason")

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return unit vectors of 256, 128 or 64 numbers."""
        _require(call.model, EMBEDDING_MODEL)
        dimensions = call.request.dimensions or _DIMENSIONS[0]
        if dimensions not in _DIMENSIONS:
            raise UpstreamError(Outcome.INVALID_REQUEST, "dimensions_unsupported")
        if call.options:
            raise UpstreamError(Outcome.INVALID_REQUEST, "unknown_option")
        table = await self._table.get()
        loop = asyncio.get_running_loop()
        try:
            embedded = await loop.run_in_executor(self._thread, table.embed, call.request.inputs, dimensions)
        except ValueError:
            raise UpstreamError(Outcome.INVALID_REQUEST, "empty_input") from None
        usage = Usage(input_tokens=embedded.tokens)
        return Embeddings(Vectors(dimensions, embedded.data), usage, EMBEDDING_MODEL)

    async def check(self) -> bool | None:
        """Return True once everything that targets use is loaded, False if it cannot be."""
        try:
            for part in self._used:
                await part.get()
        except UpstreamError:
            return False
        return True

    async def close(self) -> None:
        """Stop what is running, free the weights, end the threads."""
        if self._engine.started:
            with suppress(UpstreamError):
                engine = await self._engine.get()
                await asyncio.to_thread(engine.close)
        await asyncio.to_thread(self._thread.shutdown)


def _require(asked: str, served: str) -> None:
    if asked != served:
        raise UpstreamError(Outcome.MODEL_MISSING, "unknown_model")


def _load_engine(settings: EmbeddedSettings) -> Engine:
    from router_server.providers._embedded_engine import Engine, EngineSize  # noqa: PLC0415 - an extra

    path = prepare(_log.info)
    size = EngineSize(settings.slots, settings.context, settings.threads)
    try:
        return Engine(path, size)
    except RuntimeError as error:
        raise SetupError(
            f"the weights in {path} cannot be loaded; free some memory or lower slots and context, "
            "and if that does not help delete the file: the next start makes it again"
        ) from error


def _load_table() -> VectorTable:
    from router_server.providers._embedded_vectors import VectorTable  # noqa: PLC0415 - an extra

    return VectorTable()


def _create(settings: EmbeddedSettings, surroundings: Surroundings) -> EmbeddedProvider:
    """Make a provider, or raise `SetupError` with the line that installs what is missing."""
    _require_packages()
    return EmbeddedProvider(settings, surroundings.models)


def _require_packages() -> None:
    for package in ("xllamacpp", "wordllama"):
        if find_spec(package) is None:
            raise SetupError(f"the built-in model needs the package {package}; run: {INSTALL_EXTRA}")
    find_source()


def _prepare(surroundings: Surroundings, progress: Callable[[str], None]) -> None:
    """Convert the weights before anything is served, where a target uses them."""
    _require_packages()
    if CHAT_MODEL in surroundings.models:
        prepare(progress)


def _able(_: EmbeddedSettings, model: str) -> frozenset[Capability]:
    return _ABLE.get(model, _CHAT | _EMBED)


_CHAT: Final = frozenset(
    {
        Capability.CHAT,
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.CHOICE,
        Capability.TOP_K,
        Capability.STOP,
        Capability.SEED,
        Capability.PENALTIES,
        Capability.LOGPROBS,
        Capability.CONTINUATION,
    }
)
_EMBED: Final = frozenset({Capability.EMBED, Capability.EMBED_DIMENSIONS})
_ABLE: Final = {CHAT_MODEL: _CHAT, EMBEDDING_MODEL: _EMBED}

KIND = ProviderKind(
    name="embedded",
    settings=EmbeddedSettings,
    capabilities=_CHAT | _EMBED,
    create=_create,
    summary="A demonstration model inside the process: no key, no GPU, no network.",
    able=_able,
    prepare=_prepare,
)
