"""An embedding call becomes the body of ``batchEmbedContents``, and its answer vectors. Pure.

What the vectors are for is said in ``taskType``, or, to the models that dropped it, in words around the
text, as Google's page "Embeddings" gives them. Vectors go on as they come: ``gemini-embedding-001`` does not
normalize those that it shortens.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import UpstreamEmbed
from router_server.core.types import Embeddings, EmbeddingTask, Vectors
from router_server.providers._gemini_errors import answer_failure
from router_server.providers._gemini_models import resource_name
from router_server.providers._gemini_options import merge_options
from router_server.providers._gemini_shapes import NULL, WireUsage, usage_of
from router_server.providers._json import decoded

MAX_BATCH: Final = 100
"""Google's limit on the requests in one batch."""

_ENCODER: Final = msgspec.json.Encoder()

_TASK_TYPES: Final = {
    EmbeddingTask.QUERY: "RETRIEVAL_QUERY",
    EmbeddingTask.DOCUMENT: "RETRIEVAL_DOCUMENT",
}

_TASK_WORDS: Final = {
    EmbeddingTask.QUERY: "task: search result | query: ",
    EmbeddingTask.DOCUMENT: "title: none | text: ",
}

_WITH_WORDS: Final = ("gemini-embedding-2", "embeddinggemma")
"""Models that take the task in words."""


class _Values(msgspec.Struct, gc=False):
    values: list[float]


class _Answer(msgspec.Struct, rename="camel", gc=False):
    embeddings: list[_Values] | None = None
    usage_metadata: WireUsage | None = None
    error: msgspec.Raw = NULL


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def embed_body(call: UpstreamEmbed) -> bytes:
    """Return the request's body; the caller's options become part of every text's request.

    Raises:
        UpstreamError: INVALID_REQUEST for a refused option.
    """
    request = call.request
    common: dict[str, Any] = {"model": resource_name(call.model)}
    prefix = ""
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    if request.task is not None and any(name in call.model for name in _WITH_WORDS):
        prefix = _TASK_WORDS[request.task]
    elif request.task is not None:
        common["taskType"] = _TASK_TYPES[request.task]
    merge_options(common, call.options)
    return _ENCODER.encode(
        {"requests": [{**common, "content": {"parts": [{"text": prefix + text}]}} for text in request.inputs]}
    )


def read_embeddings(body: bytes, count: int, retry_after_cap: float) -> Embeddings:
    """Read the vectors of ``count`` texts.

    Raises:
        UpstreamError: MALFORMED where there are not ``count`` vectors of one length; what an error means.
    """
    answer = decoded(_ANSWER, body)
    if answer.error != NULL:
        raise answer_failure(answer.error, retry_after_cap)
    vectors = _matrix([embedding.values for embedding in answer.embeddings or ()], count)
    return Embeddings(vectors, usage_of(answer.usage_metadata))


def _matrix(rows: Sequence[Sequence[float]], count: int) -> Vectors:
    if len(rows) != count:
        raise UpstreamError(Outcome.MALFORMED, "wrong_number_of_vectors")
    dimensions = len(rows[0]) if rows else 0
    matrix = array("f")
    for row in rows:
        if not row or len(row) != dimensions:
            raise UpstreamError(Outcome.MALFORMED, "wrong_vector_length")
        matrix.extend(row)
    if sys.byteorder == "big":
        matrix.byteswap()
    return Vectors(dimensions, matrix.tobytes())
