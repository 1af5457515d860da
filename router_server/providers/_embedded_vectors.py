"""The built-in embedding model: one static vector for every token, averaged; numpy and nothing else.

Refuses to know requests and threads.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_SLICE: Final = 4096
"""Tokens averaged at once, so that a text of any length costs 4 MB and not a kilobyte a token."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Unit vectors as row-major little-endian float32, and how many tokens were read."""

    data: bytes
    tokens: int


class VectorTable:
    """The tokenizer and the table of vectors. Making one reads 16 MB from its package, and no network."""

    def __init__(self) -> None:
        with _root_logger_untouched():
            import wordllama  # noqa: PLC0415 - importing it changes the root logger
        package = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
        self._tokenizer: Any = model.tokenizer
        # Padding would make every text of a batch as large as its largest.
        self._tokenizer.no_padding()
        self._table: np.ndarray[Any, np.dtype[np.float32]] = model.embedding

    def embed(self, texts: Sequence[str], dimensions: int) -> Embedded:
        """Return one vector for each text.

        Raises:
            ValueError: a text has no token, so no direction either.
        """
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [self._mean(entry.ids)[:dimensions] for entry in encoded]
        matrix = np.stack(rows)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        tokens = sum(len(entry.ids) for entry in encoded)
        return Embedded((matrix / lengths).astype("<f4").tobytes(), tokens)

    def _mean(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        if not ids:
            raise ValueError("a text without a token has no vector")
        known = np.minimum(np.asarray(ids), len(self._table) - 1)
        total = np.zeros(self._table.shape[1])
        for start in range(0, len(known), _SLICE):
            total += self._table[known[start : start + _SLICE]].sum(axis=0)
        return total / len(known)


@contextlib.contextmanager
def _root_logger_untouched() -> Iterator[None]:
    """Undo ``logging.basicConfig``, which the package calls while it is imported."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for added in set(root.handlers) - set(handlers):
            root.removeHandler(added)
