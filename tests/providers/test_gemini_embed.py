import struct
from typing import Any

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.types import (
    EmbeddingTask,
    EmbedRequest,
    Usage,
)
from tests.providers.asks import ask_vectors
from tests.upstream import (
    Upstream,
    json_reply,
)


async def test_vectors(upstream: Upstream, gemini: Provider) -> None:
    rows = [{"values": [0.5, -1.0]}, {"values": [1e-3, 2]}]
    upstream.then(json_reply({"embeddings": rows, "usageMetadata": {"promptTokenCount": 4}}))
    request = EmbedRequest("route", ("a", "b"), dimensions=2, task=EmbeddingTask.QUERY)

    found = await gemini.embed(UpstreamEmbed("gemini-embedding-001", request, {"autoTruncate": False}))

    assert found.vectors.dimensions == 2
    assert struct.unpack("<4f", found.vectors.data) == pytest.approx((0.5, -1.0, 1e-3, 2.0))
    assert found.usage == Usage(4)
    assert upstream.requests[0].target == "/v1/models/gemini-embedding-001:batchEmbedContents"
    shared = {
        "model": "models/gemini-embedding-001",
        "outputDimensionality": 2,
        "taskType": "RETRIEVAL_QUERY",
        "autoTruncate": False,
    }
    assert upstream.requests[0].json == {
        "requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]
    }


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (EmbeddingTask.QUERY, "task: search result | query: a"),
        (EmbeddingTask.DOCUMENT, "title: none | text: a"),
        (None, "a"),
    ],
)
async def test_newer_models_are_told_the_task_in_words(
    upstream: Upstream, gemini: Provider, task: EmbeddingTask | None, text: str
) -> None:
    upstream.then(json_reply({"embeddings": [{"values": [1]}]}))

    found = await gemini.embed(UpstreamEmbed("gemini-embedding-2", EmbedRequest("route", ("a",), task=task)))

    assert found.usage is None
    assert upstream.requests[0].json["requests"] == [
        {"model": "models/gemini-embedding-2", "content": {"parts": [{"text": text}]}}
    ]


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        ({}, Outcome.MALFORMED, "wrong_number_of_vectors"),
        ({"embeddings": [{"values": [1]}]}, Outcome.MALFORMED, "wrong_number_of_vectors"),
        ({"embeddings": [{"values": [1]}, {"values": [1, 2]}]}, Outcome.MALFORMED, "wrong_vector_length"),
        ({"embeddings": [{"values": []}, {"values": []}]}, Outcome.MALFORMED, "wrong_vector_length"),
        ({"embeddings": [{"values": [None]}, {"values": [1]}]}, Outcome.MALFORMED, "wrong_shape"),
        ({"error": {"code": 429}}, Outcome.RATE_LIMITED, "http_429"),
    ],
)
async def test_vectors_that_are_none(
    upstream: Upstream, gemini: Provider, body: Any, outcome: Outcome, reason: str
) -> None:
    upstream.then(json_reply(body))

    with pytest.raises(UpstreamError) as caught:
        await gemini.embed(ask_vectors("a", "b"))

    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)


async def test_an_embedding_cannot_be_given_other_texts_by_option(gemini: Provider) -> None:
    request = EmbedRequest("route", ("a",))

    with pytest.raises(UpstreamError, match="provider_option_refused"):
        await gemini.embed(UpstreamEmbed("m", request, {"content": {}}))
