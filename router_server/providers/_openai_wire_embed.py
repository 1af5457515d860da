"""Embeddings on OpenAI's wire: vectors come as base64 of little-endian float32, and stay bytes.

Servers that ignore the asked encoding send lists of numbers; those are taken too. Pure. Refuses to know
batches.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamEmbed
from router_server.core.types import Embeddings, Vectors
from router_server.providers._base64_rows import lifted
from router_server.providers._json import decoded
from router_server.providers._openai_wire_errors import stream_failure
from router_server.providers._openai_wire_request import encode
from router_server.providers._openai_wire_shapes import NO_ERROR, WireUsage, error_in, usage_of

_FLOAT_BYTES: Final = 4


class _Vector(msgspec.Struct, gc=False):
    embedding: bytes | list[float]
    index: int | None = None


class _Body(msgspec.Struct, gc=False):
    data: list[_Vector] | None = None
    model: str | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = NO_ERROR


_BODY: Final = msgspec.json.Decoder(_Body)


def embed_body(call: UpstreamEmbed) -> bytes:
    """Return the body of an embedding request.

    Raises:
        UpstreamError: INVALID_REQUEST, where an option is refused or something is not JSON.
    """
    body: dict[str, Any] = {
        "model": call.model,
        "input": list(call.request.inputs),
        "encoding_format": "base64",
    }
    if call.request.dimensions is not None:
        body["dimensions"] = call.request.dimensions
    return encode(body, call.options)


def read_embeddings(body: bytes, count: int, dimensions: int | None) -> Embeddings:
    """Read the vectors of ``count`` inputs, in their order; ``dimensions`` is what was asked for, or None.

    Raises:
        UpstreamError: MALFORMED where a vector is missing, doubled or of another length; or what an error
            object in the body means.
    """
    answer = _decoded(body)
    error = error_in(answer.error)
    if error is not None:
        raise stream_failure(error)
    return _embeddings(answer, count, dimensions)


def embeddings_of(value: object, count: int, dimensions: int | None) -> Embeddings:
    """Read the same where the JSON has been decoded already.

    Raises:
        UpstreamError: MALFORMED, as `read_embeddings`.
    """
    try:
        answer = msgspec.convert(value, _Body)
    except msgspec.ValidationError:
        raise UpstreamError(Outcome.MALFORMED, "wrong_shape") from None
    return _embeddings(answer, count, dimensions)


def _decoded(body: bytes) -> _Body:
    rest, rows = lifted(body)
    answer = decoded(_BODY, rest)
    if not rows:
        return answer
    places = answer.data or []
    if len(places) != len(rows) or any(place.embedding != b"" for place in places):
        # Something else of that name stands in it, or not all could be lifted.
        return decoded(_BODY, body)
    for place, row in zip(places, rows, strict=True):
        place.embedding = row
    return answer


def _embeddings(answer: _Body, count: int, dimensions: int | None) -> Embeddings:
    vectors = _in_order(answer.data or [], count)
    rows = [row if type(row := vector.embedding) is bytes else _bytes_of(row) for vector in vectors]
    size = len(rows[0]) if dimensions is None else dimensions * _FLOAT_BYTES
    if not size or size % _FLOAT_BYTES or set(map(len, rows)) != {size}:
        raise UpstreamError(Outcome.MALFORMED, "wrong_dimensions")
    return Embeddings(
        Vectors(size // _FLOAT_BYTES, b"".join(rows)),
        usage_of(answer.usage) if answer.usage else None,
        answer.model or "",
    )


def _in_order(vectors: list[_Vector], count: int) -> list[_Vector]:
    if count and [vector.index for vector in vectors] == list(range(count)):
        return vectors
    placed: dict[int, _Vector] = {
        at if vector.index is None else vector.index: vector for at, vector in enumerate(vectors)
    }
    if not count or len(vectors) != count or set(placed) != set(range(count)):
        raise UpstreamError(Outcome.MALFORMED, "wrong_vector_count")
    return [placed[at] for at in range(count)]


def _bytes_of(numbers: Iterable[float]) -> bytes:
    written = array("f", numbers)
    if sys.byteorder == "big":
        written.byteswap()
    return written.tobytes()
