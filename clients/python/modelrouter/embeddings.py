"""The vectors of an embedding call, straight from the wire's bytes: no float is boxed on the way.

Uses numpy where it is installed and never needs it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelrouter.errors import MalformedAnswer
from modelrouter.v1 import common_pb2, embed_pb2

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_FLOAT32 = 4


class Embeddings:
    """One vector per input, in the order of the inputs.

    ``len()``, indexing and iteration go over the vectors; ``numpy.asarray()`` takes it as it is.

    Raises:
        MalformedAnswer: the answer does not hold ``inputs`` vectors of one length.
    """

    def __init__(self, raw: embed_pb2.EmbedResponse, inputs: int) -> None:
        self.raw = raw
        self.dimensions: int = raw.dimensions
        self._rows = inputs
        self._bytes = raw.matrix_le_f32
        if len(self._bytes) != inputs * self.dimensions * _FLOAT32:
            raise MalformedAnswer(
                f"the router sent {len(self._bytes)} bytes of vectors where {inputs} inputs in "
                f"{self.dimensions} dimensions take {inputs * self.dimensions * _FLOAT32}"
            )

    def __repr__(self) -> str:
        return f"Embeddings({self._rows} x {self.dimensions}, model={self.raw.model!r})"

    @cached_property
    def vectors(self) -> Any:
        """A float32 ``numpy.ndarray`` (inputs, dimensions); without numpy a list of ``array('f')``."""
        try:
            import numpy as np  # noqa: PLC0415 - optional, and slow to import
        except ImportError:
            return [self._row(index) for index in range(self._rows)]
        matrix = np.frombuffer(self._bytes, "<f4").astype(np.float32)
        return matrix.reshape(self._rows, self.dimensions)

    @property
    def usage(self) -> common_pb2.Usage:
        """Tokens and cost of the attempt that answered."""
        return self.raw.usage

    @property
    def route(self) -> common_pb2.RouteInfo:
        """Who answered, and who was tried before."""
        return self.raw.route

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np  # noqa: PLC0415 - who calls this has it

        wanted = np.dtype(dtype or np.float32)
        if copy is False and wanted != np.float32:
            raise ValueError(f"float32 vectors cannot become {wanted} without a copy")
        # numpy 1 does not know copy=None, "if needed".
        matrix: NDArray[Any] = self.vectors.astype(wanted, copy=bool(copy))
        return matrix

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int | slice) -> Any:
        return self.vectors[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.vectors)

    def _row(self, index: int) -> array[float]:
        size = self.dimensions * _FLOAT32
        row = array("f", self._bytes[index * size : (index + 1) * size])
        if sys.byteorder == "big":
            row.byteswap()
        return row
