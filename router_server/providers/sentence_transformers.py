"""The kind ``sentence-transformers``: embedding models of that package, in this process.

Torch computes on a thread of the provider, one call at a time. Refuses to chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Capability, ProviderKind, Surroundings, UpstreamChat, UpstreamEmbed
from router_server.core.types import Answer, Embeddings, StreamItem, Usage, Vectors
from router_server.providers import SetupError
from router_server.providers._extras import require_extra
from router_server.providers._loading import Loading

if TYPE_CHECKING:  # the libraries are an extra, and importing them takes longer than the rest of a start
    from router_server.providers._sentence_encoder import Encoded, Encoder, Matrix

_NAME: Final = "sentence-transformers"


class Settings(BaseModel):
    """Where the models are computed, and how.

    Attributes:
        device: as torch names it: cpu, cuda, cuda:1, mps; null: a GPU where there is one, else the CPU.
        batch_size: texts that are computed at once.
        normalize: give vectors unit length, whatever the model does.
        dimensions: shorter lengths that callers may ask for, where a model was trained to be cut to them.
        local_files_only: never download a model that is not on this machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str | None = Field(default=None, min_length=1)
    batch_size: int = Field(default=32, ge=1, le=4096)
    normalize: bool = True
    dimensions: tuple[int, ...] = ()
    local_files_only: bool = False


class SentenceTransformersProvider:
    """Loads the models of its targets in the background, and any other when it is first asked for."""

    address: tuple[str, int | None] = ("", None)
    max_embed_batch = 1024

    def __init__(self, settings: Settings, models: Sequence[str]) -> None:
        self._settings = settings
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="sentence-loading")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sentence-encoding")
        self._used = frozenset(models)
        self._encoders: dict[str, Loading[Encoder]] = {}
        for model in models:
            self._loading(model).start()

    async def chat(self, call: UpstreamChat) -> Answer:  # noqa: ARG002 - the protocol's signature
        """Refuse: these models embed."""
        raise UpstreamError(Outcome.INVALID_REQUEST, "chat_unsupported")

    def stream(self, call: UpstreamChat) -> AsyncIterator[Sequence[StreamItem]]:  # noqa: ARG002 - as above
        """Refuse: these models embed."""
        raise UpstreamError(Outcome.INVALID_REQUEST, "chat_unsupported")

    async def embed(self, call: UpstreamEmbed) -> Embeddings:
        """Return one vector for each text; being cancelled ends the computing after the batch that runs."""
        if call.options:
            raise UpstreamError(Outcome.INVALID_REQUEST, "unknown_option")
        encoder = await self._loading(call.model).get()
        size = self._size(encoder, call.request.dimensions)
        encoded = await self._encoded(encoder, call)
        matrix = self._finished(encoded.matrix, size)
        usage = None if encoded.tokens is None else Usage(input_tokens=encoded.tokens)
        return Embeddings(Vectors(matrix.shape[1], matrix.astype("<f4").tobytes()), usage, call.model)

    async def check(self) -> bool | None:
        """Return True once the models of all targets are loaded; one that could not be is tried again.

        Raises:
            UpstreamError: one cannot be loaded.
        """
        for model in self._used:
            await self._loading(model, again=True).get()
        return True

    async def close(self) -> None:
        """Free the models, end the threads; what is being loaded or computed is waited for."""
        for executor in (self._loader, self._worker):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        self._encoders.clear()

    def _loading(self, model: str, *, again: bool = False) -> Loading[Encoder]:
        known = self._encoders.get(model)
        if known is not None and not (again and known.failed):
            return known
        settings = self._settings
        made = Loading(self._loader, lambda: _load(model, settings), f"the model {model}")
        self._encoders[model] = made
        return made

    async def _encoded(self, encoder: Encoder, call: UpstreamEmbed) -> Encoded:
        from router_server.providers import _sentence_encoder as library  # noqa: PLC0415 - loaded by now

        stopped = Event()
        request = call.request
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._worker, encoder.encode, request.inputs, request.task, stopped
            )
        except library.InputRefusedError:
            raise UpstreamError(Outcome.INVALID_REQUEST, "input_refused") from None
        except library.EncoderBrokenError:
            raise UpstreamError(Outcome.UNAVAILABLE, "model_failed") from None
        finally:
            stopped.set()

    def _size(self, encoder: Encoder, wanted: int | None) -> int | None:
        if wanted is None or wanted == encoder.dimensions or wanted in self._settings.dimensions:
            return wanted
        raise UpstreamError(Outcome.INVALID_REQUEST, "dimensions_unsupported")

    def _finished(self, matrix: Matrix, size: int | None) -> Matrix:
        cut = matrix[:, :size]
        if not self._settings.normalize:
            return cut
        import numpy as np  # noqa: PLC0415 - comes with the extra

        lengths = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.divide(cut, np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _load(model: str, settings: Settings) -> Encoder:
    from router_server.providers._sentence_encoder import Encoder, Place  # noqa: PLC0415 - an extra

    return Encoder(model, Place(settings.device, settings.batch_size, settings.local_files_only))


def _create(settings: Settings, surroundings: Surroundings) -> SentenceTransformersProvider:
    """Make a provider.

    Raises:
        SetupError: the package is missing, or a model that is named by its path.
    """
    require_extra(_NAME, "sentence_transformers", surroundings.name)
    for model in surroundings.models:
        if model.startswith(("/", "./", "../")) and not Path(model).is_dir():
            raise SetupError(
                f"the provider {surroundings.name} has a model {model}, and there is no such folder"
            )
    return SentenceTransformersProvider(settings, surroundings.models)


KIND: Final = ProviderKind(
    name=_NAME,
    settings=Settings,
    capabilities=frozenset({Capability.EMBED, Capability.EMBED_DIMENSIONS, Capability.EMBED_TASK}),
    create=_create,
    summary="Embedding models of the package sentence-transformers, in this process.",
)
