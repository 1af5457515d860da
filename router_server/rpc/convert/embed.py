"""Embed requests in, vectors out, and how large an answer will be.

Vectors are copied as bytes: a packed repeated float is little-endian float32, which is how the core holds
them. Appending 2,048 x 3,072 Python floats takes 260 ms of the loop's time. They are copied once, behind the
bytes of a message that has everything else: set in a message, they would be copied there, into the bytes of
it, and into what gRPC is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from modelrouter.v1 import embed_pb2 as pb
from router_server.core.errors import Reason, RouterError, Violation
from router_server.core.results import EmbedResult
from router_server.core.types import EmbeddingTask, EmbedRequest, Vectors
from router_server.rpc.convert.answers import write_trail, write_usage
from router_server.rpc.convert.common import (
    NO_WISH,
    read_labels,
    read_model,
    read_name,
    read_provider_options,
    read_routing,
)
from router_server.rpc.convert.fields import Fields

_MOST_INPUTS = 2_048
"""What OpenAI takes in one call."""
_MOST_DIMENSIONS = 65_536
_FLOAT_BYTES = 4
_LENGTH_DELIMITED: Final = 2
"""The kind of field on protobuf's wire that bytes, messages and packed numbers are."""
_BESIDES_BYTES: Final = 65_536
"""Room for everything but the vectors: names, usage, the trail of attempts."""

_TASKS: Mapping[int, EmbeddingTask] = {
    pb.EMBEDDING_TASK_QUERY: EmbeddingTask.QUERY,
    pb.EMBEDDING_TASK_DOCUMENT: EmbeddingTask.DOCUMENT,
}


class Encoding(StrEnum):
    """How the vectors are written."""

    FLOATS = "floats"
    """A repeated float per input: every language reads it at once."""
    MATRIX = "matrix"
    """One field of bytes for all: nothing is copied twice."""


_ENCODINGS: Mapping[int, Encoding] = {
    pb.EMBEDDING_ENCODING_FLOAT32: Encoding.FLOATS,
    pb.EMBEDDING_ENCODING_FLOAT32_BYTES: Encoding.MATRIX,
}


def read_embed(request: pb.EmbedRequest) -> tuple[EmbedRequest, Encoding]:
    """Return the core's request, and how to write its answer.

    Raises:
        RouterError: INVALID_REQUEST, with every bad field.
    """
    fields = Fields()
    encoding = fields.choice("encoding", request.encoding, _ENCODINGS, pb.EmbeddingEncoding)
    embed = EmbedRequest(
        model=read_model(request.model, fields),
        inputs=_inputs(request, fields),
        dimensions=_dimensions(request, fields),
        task=fields.choice("task", request.task, _TASKS, pb.EmbeddingTask),
        routing=read_routing(request.routing, fields) if request.HasField("routing") else NO_WISH,
        labels=read_labels(request.labels, fields),
        idempotency_key=read_name("idempotency_key", request.idempotency_key, fields),
        provider_options=read_provider_options(request.provider_options_json, fields),
        user_id=read_name("user_id", request.user_id, fields),
    )
    fields.raise_if_any()
    return embed, encoding or Encoding.FLOATS


def write_embed(result: EmbedResult, encoding: Encoding) -> bytes:
    """Return the answer of the contract: the bytes of an EmbedResponse."""
    rest = pb.EmbedResponse(id=result.call_id, model=result.model, dimensions=result.vectors.dimensions)
    write_usage(result.usage, rest.usage)
    write_trail(result.trail, rest.route)
    vectors = _matrix(result.vectors) if encoding is Encoding.MATRIX else _floats(result.vectors)
    return b"".join((rest.SerializeToString(), *vectors))


def answer_bytes(inputs: int, dimensions: int, encoding: Encoding) -> int:
    """Return how large an answer will be at most, in bytes."""
    return _BESIDES_BYTES + inputs * _row_bytes(dimensions, encoding)


def refuse_large_answer(inputs: int, dimensions: int, encoding: Encoding, most: int) -> None:
    """Check that an answer fits a message of ``most`` bytes.

    Raises:
        RouterError: INVALID_REQUEST, saying how many inputs would fit.
    """
    size = answer_bytes(inputs, dimensions, encoding)
    if size <= most:
        return
    fit = max(0, most - _BESIDES_BYTES) // _row_bytes(dimensions, encoding)
    advice = (
        f"send at most {fit} inputs per call" if fit else "ask for fewer dimensions: not even one vector fits"
    )
    description = (
        f"{inputs} vectors of {dimensions} dimensions make an answer of {size:,} bytes, "
        f"and a message holds {most:,}; {advice}"
    )
    raise RouterError(
        Reason.INVALID_REQUEST, f"inputs: {description}", violations=(Violation("inputs", description),)
    )


def _inputs(request: pb.EmbedRequest, fields: Fields) -> tuple[str, ...]:
    if not request.inputs:
        fields.wrong("inputs", "add at least one input")
    if len(request.inputs) > _MOST_INPUTS:
        fields.wrong("inputs", f"has {len(request.inputs)} entries; send at most {_MOST_INPUTS} per call")
        return ()
    texts = tuple([item.text for item in request.inputs])
    if not all(texts):
        _name_empty(request, fields)
    return texts


def _name_empty(request: pb.EmbedRequest, fields: Fields) -> None:
    for index, item in enumerate(request.inputs):
        if item.WhichOneof("input") is None:
            fields.wrong(f"inputs[{index}]", "set text; this server knows no other input")
        elif not item.text:
            fields.wrong(f"inputs[{index}].text", "must not be empty")


def _dimensions(request: pb.EmbedRequest, fields: Fields) -> int | None:
    if not request.HasField("dimensions"):
        return None
    return fields.integer("dimensions", request.dimensions, least=1, most=_MOST_DIMENSIONS)


def _matrix(vectors: Vectors) -> Iterable[bytes]:
    return _head(pb.EmbedResponse.MATRIX_LE_F32_FIELD_NUMBER, len(vectors.data)), vectors.data


def _floats(vectors: Vectors) -> Iterator[bytes | memoryview]:
    size = _FLOAT_BYTES * vectors.dimensions
    values = _head(pb.Embedding.VALUES_FIELD_NUMBER, size)
    head = _head(pb.EmbedResponse.EMBEDDINGS_FIELD_NUMBER, len(values) + size) + values
    data = memoryview(vectors.data)
    for start in range(0, len(data), size or 1):
        yield head
        yield data[start : start + size]


def _row_bytes(dimensions: int, encoding: Encoding) -> int:
    size = _FLOAT_BYTES * dimensions
    if encoding is Encoding.MATRIX:
        return size
    packed = len(_head(pb.Embedding.VALUES_FIELD_NUMBER, size)) + size
    return len(_head(pb.EmbedResponse.EMBEDDINGS_FIELD_NUMBER, packed)) + packed


def _head(field: int, size: int) -> bytes:
    """Return what stands before ``size`` bytes of this field on protobuf's wire."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte: the encoding's own number
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
