"""Embeddings of the kind ``openai`` over real sockets."""

import base64
import struct
from typing import Any

import pytest

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Provider, UpstreamEmbed
from router_server.core.types import (
    EmbedRequest,
)
from tests.upstream import (
    Upstream,
    json_reply,
    reply,
)


def embed_call(*inputs: str, **fields: Any) -> UpstreamEmbed:
    options = fields.pop("options", {})
    return UpstreamEmbed("e", EmbedRequest("route", inputs, **fields), options)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def packed(*values: float) -> str:
    return base64.b64encode(floats(*values)).decode()


async def test_embeddings(upstream: Upstream, provider: Provider) -> None:
    rows = [{"index": 1, "embedding": packed(3, 4)}, {"index": 0, "embedding": packed(1, 2)}]
    upstream.then(
        json_reply({"data": rows, "model": "e-1", "usage": {"prompt_tokens": 6, "total_tokens": 6}})
    )
    embeddings = await provider.embed(embed_call("a", "b", dimensions=2, options={"x": 1}))
    assert (embeddings.vectors.dimensions, embeddings.vectors.data) == (2, floats(1, 2, 3, 4))
    assert embeddings.usage is not None
    assert (embeddings.usage.input_tokens, embeddings.reported_model) == (6, "e-1")
    sent = upstream.requests[0]
    assert sent.target == "/v1/embeddings"
    assert sent.json == {
        "model": "e",
        "input": ["a", "b"],
        "encoding_format": "base64",
        "dimensions": 2,
        "x": 1,
    }


async def test_embeddings_of_a_server_that_knows_only_numbers(upstream: Upstream, provider: Provider) -> None:
    upstream.then(json_reply({"data": [{"embedding": [1, 0.5]}, {"embedding": [-1.5, 2e-3]}]}))
    embeddings = await provider.embed(embed_call("a", "b"))
    assert embeddings.vectors.data == floats(1, 0.5, -1.5, 2e-3)
    assert embeddings.usage is None


async def test_base64_however_its_json_is_written(upstream: Upstream, provider: Provider) -> None:
    plain, escaped = packed(1, 2), packed(-1.984375, -1.984375).replace("/", r"\/")
    assert "\\" in escaped
    rows = (
        f'{{"object": "embedding" ,"index":0, "embedding" :\n "{plain}"}}',
        f'{{"embedding":"{escaped}","index":1}}',
        '{"embedding":[5, 6]}',
        f'{{"embedding":"{plain}"}}',
    )
    upstream.then(reply(f'{{"data": [\n{",".join(rows)}\n]}}'.encode()))
    embeddings = await provider.embed(embed_call("a", "b", "c", "d"))
    assert embeddings.vectors.data == floats(1, 2, -1.984375, -1.984375, 5, 6, 1, 2)


async def test_vectors_that_are_not_the_answer_do_not_get_into_it(
    upstream: Upstream, provider: Provider
) -> None:
    other = {"embedding": packed(9, 9)}
    rows = [{"meta": other, "embedding": packed(1, 2)}, {"embedding": [3, 4], "meta": other}]
    upstream.then(json_reply({"meta": other, "data": rows, "other": [other]}))
    embeddings = await provider.embed(embed_call("a", "b"))
    assert embeddings.vectors.data == floats(1, 2, 3, 4)


async def test_an_empty_vector_is_not_filled_with_one_that_is_not_the_answer(
    upstream: Upstream, provider: Provider
) -> None:
    escaped = packed(-1.984375, -1.984375).replace("/", r"\/")
    first = f'{{"meta":{{"embedding":"{packed(9, 9)}"}},"embedding":"{escaped}"}}'
    upstream.then(reply(f'{{"data":[{first},{{"embedding":""}}]}}'.encode()))
    with pytest.raises(UpstreamError, match="wrong_dimensions"):
        await provider.embed(embed_call("a", "b"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0, 2.0]}], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}], "wrong_vector_count"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 7, "embedding": [1.0]}], "wrong_vector_count"),
        ([{"embedding": [1.0, 2.0]}, {"embedding": [1.0]}], "wrong_dimensions"),
        ([{"embedding": [1.0]}, {"embedding": [1.0]}], "wrong_dimensions"),
        ([{"embedding": []}, {"embedding": []}], "wrong_dimensions"),
        ([{"embedding": "AAAA"}, {"embedding": "AAAA"}], "wrong_dimensions"),
        ([{"embedding": "!"}, {"embedding": "!"}], "wrong_shape"),
        ([{"embedding": packed(1, 2)}, {"embedding": packed(1, 2)[:-1]}], "wrong_shape"),
        ([{"embedding": packed(1, 2)}, {"embedding": packed(1, 2)[:-3] + "é=="}], "wrong_shape"),
        ([{"embedding": packed(1, 2)}, {"embedding": ""}], "wrong_dimensions"),
        ([{"embedding": packed(1, 2)}, {"embedding": None}], "wrong_shape"),
        ([{"embedding": ["x"]}, {"embedding": ["x"]}], "wrong_shape"),
        ({}, "wrong_shape"),
    ],
)
async def test_embeddings_that_are_none(
    upstream: Upstream, provider: Provider, data: object, reason: str
) -> None:
    upstream.then(json_reply({"data": data}))
    with pytest.raises(UpstreamError) as caught:
        await provider.embed(embed_call("a", "b", dimensions=2))
    assert (caught.value.outcome, caught.value.reason) == (Outcome.MALFORMED, reason)
