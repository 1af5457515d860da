"""A model of the package sentence-transformers, on the thread where it computes.

Blocks, and hears of a cancellation between two batches. Refuses to know requests and the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Final

import numpy as np

from router_server.core.types import EmbeddingTask
from router_server.providers import SetupError

Matrix = np.ndarray[Any, np.dtype[np.float32]]

_PROBE: Final = "a"
"""A text that every model can embed: where it fails too, the text before was not to blame."""

_log = logging.getLogger(__name__)


class InputRefusedError(Exception):
    """One text cannot be embedded, though others can."""


class EncoderBrokenError(Exception):
    """Nothing can be embedded."""


class StoppedError(Exception):
    """Whoever asked has gone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is found and computed; see the settings of the kind."""

    device: str | None
    batch_size: int
    local_files_only: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row for each text, and how many tokens were read; None where the model does not tell."""

    matrix: Matrix
    tokens: int | None


class Encoder:
    """One model, loaded. Making one imports torch and reads the weights: many seconds.

    Raises:
        SetupError: it cannot be loaded; the message says what to do.
    """

    def __init__(self, name: str, place: Place) -> None:
        # Read when the library is imported; what the operator has set is left.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - an extra, and slow to import
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - comes with the extra

        disable_progress_bar()  # it would be drawn into the log
        try:
            self._model: Any = SentenceTransformer(
                name, device=place.device, local_files_only=place.local_files_only
            )
        except Exception as error:  # noqa: BLE001 - each of the library's many layers raises its own
            _log.debug("loading %s failed", name, exc_info=True)
            raise SetupError(
                f"the model {name} cannot be loaded ({type(error).__name__}); give the path of a folder, "
                "or a name of the Hugging Face Hub that this machine can reach, and a device that it has"
            ) from None
        self._batch_size = place.batch_size
        _log.info("loaded %s on %s", name, self._model.device)

    @property
    def dimensions(self) -> int | None:
        """How long its vectors are; None where it does not tell."""
        size: int | None = self._model.get_embedding_dimension()
        return size

    def encode(self, texts: Sequence[str], task: EmbeddingTask | None, stopped: Event) -> Encoded:
        """Return a row for each text, in order.

        Texts of like length are computed together, ``batch_size`` of them at once; those of a batch that
        fails, one by one.

        Raises:
            InputRefusedError: one of them cannot be embedded.
            EncoderBrokenError: the model does not work any more.
            StoppedError: ``stopped`` was set.
        """
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        rows: list[Mapping[str, Any]] = []
        for start in range(0, len(order), self._batch_size):
            if stopped.is_set():
                raise StoppedError
            rows += self._batch([texts[at] for at in order[start : start + self._batch_size]], task, stopped)
        placed = dict(zip(order, rows, strict=True))
        matrix = np.stack([_vector(placed[at]) for at in range(len(texts))])
        return Encoded(matrix, _tokens(rows))

    def _batch(
        self, texts: Sequence[str], task: EmbeddingTask | None, stopped: Event
    ) -> list[Mapping[str, Any]]:
        try:
            return self._compute(texts, task)
        except Exception as error:  # noqa: BLE001 - a tokenizer's or a device's: any
            _log.debug("a batch of %s failed: %s", len(texts), type(error).__name__)
        rows: list[Mapping[str, Any]] = []
        for text in texts:
            if stopped.is_set():
                raise StoppedError
            rows += self._alone(text, task)
        return rows

    def _alone(self, text: str, task: EmbeddingTask | None) -> list[Mapping[str, Any]]:
        try:
            return self._compute([text], task)
        except Exception:  # noqa: BLE001 - as above
            if self._works():
                raise InputRefusedError from None
            raise EncoderBrokenError from None

    def _works(self) -> bool:
        try:
            self._compute([_PROBE], None)
        except Exception:  # noqa: BLE001 - as above
            return False
        return True

    def _compute(self, texts: Sequence[str], task: EmbeddingTask | None) -> list[Mapping[str, Any]]:
        model = self._model
        encode = {
            None: model.encode,
            EmbeddingTask.QUERY: model.encode_query,
            EmbeddingTask.DOCUMENT: model.encode_document,
        }[task]
        rows: list[Mapping[str, Any]] = encode(
            list(texts), batch_size=len(texts), output_value=None, show_progress_bar=False
        )
        return rows


def _vector(row: Mapping[str, Any]) -> Matrix:
    vector: Matrix = row["sentence_embedding"].float().cpu().numpy()
    return vector


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int | None:
    masks = [row["attention_mask"] for row in rows if "attention_mask" in row]
    return sum(int(mask.sum()) for mask in masks) if len(masks) == len(rows) else None
