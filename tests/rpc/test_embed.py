"""Embed requests, vectors in both encodings, and answers too large for a message."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from modelrouter.v1 import embed_pb2
from router_server.core.errors import Reason, RouterError
from router_server.core.results import EmbedResult, Invocation
from router_server.core.types import EmbeddingTask, EmbedRequest, Usage, Vectors
from router_server.rpc.convert.embed import Encoding, answer_bytes, read_embed, write_embed
from router_server.rpc.settings import ServerSettings
from tests.rpc.scripted import TRAIL, ScriptedRouter, refused, serving

BYTES = embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES


def request(*texts: str, **fields: Any) -> embed_pb2.EmbedRequest:
    inputs = [embed_pb2.EmbedInput(text=text) for text in texts]
    return embed_pb2.EmbedRequest(model="embed", inputs=inputs, **fields)


def vectors_of(rows: int, dimensions: int) -> Vectors:
    values = array("f", [float(i % 97) / 7 for i in range(rows * dimensions)])
    return Vectors(dimensions, values.tobytes())


def embedder(dimensions: int) -> ScriptedRouter:
    async def embed(asked: EmbedRequest, call: Invocation) -> EmbedResult:
        vectors = vectors_of(len(asked.inputs), dimensions)
        return EmbedResult(call.call_id, asked.model, vectors, Usage(5), TRAIL)

    return ScriptedRouter(on_embed=embed)


def written(result: EmbedResult, encoding: Encoding) -> embed_pb2.EmbedResponse:
    return embed_pb2.EmbedResponse.FromString(write_embed(result, encoding))


def test_a_request() -> None:
    embed, encoding = read_embed(
        request("a", "b", dimensions=8, task=embed_pb2.EMBEDDING_TASK_QUERY, encoding=BYTES, user_id="u")
    )
    assert embed == EmbedRequest("embed", ("a", "b"), 8, EmbeddingTask.QUERY, user_id="u")
    assert encoding is Encoding.MATRIX
    assert read_embed(request("a"))[1] is Encoding.FLOATS


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"model": ""}, "model", "name a route"),
        ({"inputs": []}, "inputs", "at least one input"),
        ({"inputs": [{"text": "a"}, {"text": ""}]}, "inputs[1].text", "must not be empty"),
        ({"inputs": [{}]}, "inputs[0]", "set text"),
        ({"inputs": [{"text": "a"}] * 2_049}, "inputs", "at most 2048 per call"),
        ({"dimensions": 0}, "dimensions", "between 1 and 65536, not 0"),
        ({"encoding": 9}, "encoding", "EMBEDDING_ENCODING_FLOAT32"),
        ({"task": 9}, "task", "EMBEDDING_TASK_QUERY"),
        (
            {"providerOptionsJson": {"openai": '{"user": "x"}'}},
            'provider_options_json["openai"].user',
            "router",
        ),
    ],
)
def test_a_bad_field(fields: dict[str, Any], field: str, says: str) -> None:
    whole = {"model": "embed", "inputs": [{"text": "a"}], **fields}
    with pytest.raises(RouterError) as caught:
        read_embed(json_format.ParseDict(whole, embed_pb2.EmbedRequest()))
    (violation,) = caught.value.violations
    assert violation.field == field
    assert says in violation.description


@given(st.integers(1, 40), st.integers(1, 300))
def test_both_encodings_hold_the_same_floats(rows: int, dimensions: int) -> None:
    vectors = vectors_of(rows, dimensions)
    result = EmbedResult("id", "embed", vectors, Usage(5), TRAIL)
    floats, matrix = written(result, Encoding.FLOATS), written(result, Encoding.MATRIX)
    assert floats.dimensions == matrix.dimensions == dimensions
    assert matrix.matrix_le_f32 == vectors.data
    assert not matrix.embeddings
    assert [len(embedding.values) for embedding in floats.embeddings] == [dimensions] * rows
    flat = [value for embedding in floats.embeddings for value in embedding.values]
    assert struct.pack(f"<{len(flat)}f", *flat) == vectors.data


@given(st.integers(1, 40), st.integers(1, 5_000), st.sampled_from(Encoding))
def test_the_estimate_is_never_too_small_and_not_far_off(
    rows: int, dimensions: int, encoding: Encoding
) -> None:
    result = EmbedResult(
        "i" * 64, "embed", Vectors(dimensions, bytes(4 * rows * dimensions)), Usage(5), TRAIL
    )
    size = len(write_embed(result, encoding))
    assert size <= answer_bytes(rows, dimensions, encoding) <= size + 65_536


@pytest.mark.parametrize("encoding", [0, BYTES])
async def test_vectors_arrive(encoding: embed_pb2.EmbeddingEncoding) -> None:
    async with serving(embedder(16)) as it:
        answer = await it.stub.Embed(request("a", "b", encoding=encoding))
    assert (answer.dimensions, answer.usage.input_tokens, answer.route.target) == (16, 5, "gpt")
    assert len(answer.embeddings) == (0 if encoding == BYTES else 2)
    assert len(answer.matrix_le_f32) == (128 if encoding == BYTES else 0)


@pytest.mark.parametrize("asked", [1_000, None])
async def test_an_answer_that_no_message_holds_is_refused_with_how_many_fit(asked: int | None) -> None:
    settings = ServerSettings(listen="127.0.0.1:0", max_send_bytes=1_000_000)
    async with serving(embedder(1_000), settings) as it:
        answer = await refused(it.stub.Embed(request(*["a"] * 300, dimensions=asked)))
        # Known before the call, nothing is asked of anyone; learned after it, it is refused all the same.
        assert len(it.router.calls) == (0 if asked else 1)
        assert answer.reason == Reason.INVALID_REQUEST
        (violation,) = answer.details["BadRequest"].field_violations
        assert violation.field == "inputs"
        assert "send at most 233 inputs per call" in violation.description
        assert len((await it.stub.Embed(request(*["a"] * 233, dimensions=asked))).embeddings) == 233


async def test_not_even_one_vector_fits() -> None:
    settings = ServerSettings(listen="127.0.0.1:0", max_send_bytes=70_000)
    async with serving(embedder(2_000), settings) as it:
        answer = await refused(it.stub.Embed(request("a", dimensions=2_000)))
    assert "ask for fewer dimensions" in answer.message


async def test_the_largest_answer_of_the_design_arrives() -> None:
    large = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
    async with serving(embedder(3_072), options=large) as it:
        answer = await it.stub.Embed(request(*["a"] * 2_048, encoding=BYTES))
    assert len(answer.matrix_le_f32) == 2_048 * 3_072 * 4
