"""Vectors through the whole server: how they travel, how they are batched, and that spaces never mix."""

from __future__ import annotations

import base64
import struct
from array import array
from typing import Any

import pytest
from google.rpc import error_details_pb2

from modelrouter.v1 import embed_pb2
from tests.e2e.serving import Failure, fails, serving, two_targets
from tests.upstream import Request, Steps, Upstream, json_reply

FLOATS = embed_pb2.EMBEDDING_ENCODING_FLOAT32
BYTES = embed_pb2.EMBEDDING_ENCODING_FLOAT32_BYTES

MOCK = """
    providers:
      m: {kind: mock, dimensions: 3, health_check: null}
    targets:
      m1: {provider: m, model: mock-embed}
    routes:
      embed: {targets: [m1]}
"""


def ask(*texts: str, model: str = "embed", **fields: Any) -> embed_pb2.EmbedRequest:
    inputs = [embed_pb2.EmbedInput(text=text) for text in texts]
    return embed_pb2.EmbedRequest(model=model, inputs=inputs, **fields)


def vector(text: str) -> tuple[float, float]:
    """What the upstream makes of a text; both numbers are exact in float32."""
    return float(len(text)), ord(text[0]) / 2


def embeds(request: Request) -> Steps:
    """Answer as OpenAI does, the last input first, which the indices mend."""
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack("<2f", *vector(text))).decode(),
        }
        for index, text in enumerate(request.json["input"])
    ]
    usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
    return json_reply({"object": "list", "data": rows[::-1], "model": "model-e", "usage": usage})


def refuses(bad: str, code: str | None = None) -> Any:
    def answer(request: Request) -> Steps:
        if bad in request.json["input"]:
            return json_reply({"error": {"message": f"{bad} is bad", "code": code}}, 400)
        return embeds(request)

    return answer


def rows_of(response: embed_pb2.EmbedResponse) -> list[tuple[float, ...]]:
    return [tuple(one.values) for one in response.embeddings]


def one_space(a: Upstream, b: Upstream, *, max_batch: str = "") -> str:
    text = two_targets(a, b, extra=max_batch)
    return text.replace("model: model-a", "model: model-e").replace("model: model-b", "model: model-e")


async def test_the_same_vectors_in_both_encodings() -> None:
    texts = ("a", "bb", "ccc")
    async with Upstream() as a, Upstream() as b:
        a.always(embeds)
        async with serving(one_space(a, b)) as served:
            floats = await served.stub.Embed(ask(*texts, model="chat", encoding=FLOATS))
            default = await served.stub.Embed(ask(*texts, model="chat"))
            matrix = await served.stub.Embed(ask(*texts, model="chat", encoding=BYTES))
    expected = [vector(text) for text in texts]
    assert rows_of(floats) == rows_of(default) == expected
    assert not floats.matrix_le_f32
    assert not matrix.embeddings
    numbers = array("f", matrix.matrix_le_f32)
    assert [tuple(numbers[i : i + 2]) for i in (0, 2, 4)] == expected
    assert floats.dimensions == matrix.dimensions == 2
    for response in (floats, matrix):
        assert (response.model, response.usage.input_tokens, response.usage.output_tokens) == ("chat", 3, 0)
        assert (response.route.target, response.route.upstream_model) == ("a1", "model-e")


async def test_dimensions_are_asked_for_and_kept() -> None:
    async with serving(MOCK) as served:
        response = await served.stub.Embed(ask("a", "b", dimensions=5, encoding=BYTES))
        assert response.dimensions == 5
        assert len(response.matrix_le_f32) == 2 * 5 * 4
        usual = await served.stub.Embed(ask("a"))
        assert usual.dimensions == len(usual.embeddings[0].values) == 3


async def test_an_answer_of_other_dimensions_than_asked_is_not_passed_on() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(embeds)
        b.always(embeds)
        async with serving(one_space(a, b)) as served:
            failure = await fails(served.stub.Embed(ask("a", model="chat", dimensions=3)))
    assert failure.reason == "ALL_TARGETS_FAILED"
    assert failure.metadata["attempt.1"].startswith("a1 a malformed")


async def test_many_inputs_go_in_batches_that_the_provider_takes() -> None:
    texts = [chr(97 + i % 26) * (1 + i % 7) for i in range(250)]
    async with Upstream() as a:
        a.always(batch_embeds)
        async with serving(gemini(a)) as served:
            response = await served.stub.Embed(ask(*texts))
            assert served.idle
    assert rows_of(response) == [vector(text) for text in texts]
    assert [len(request.json["requests"]) for request in a.requests] == [100, 100, 50]
    assert [attempt.target for attempt in response.route.attempts] == ["g1"], (
        "one attempt, however many batches"
    )


async def test_all_or_nothing() -> None:
    """The last batch fails: nothing of the others is given out."""
    async with Upstream() as a:
        a.then(batch_embeds, batch_embeds, json_reply({"error": {"code": 400, "message": "no"}}, 400))
        a.always(json_reply({"error": {"code": 503, "message": "no"}}, 503))
        async with serving(gemini(a)) as served:
            failure = await fails(served.stub.Embed(ask(*["text"] * 250)))
            assert served.idle
    assert failure.reason == "ALL_TARGETS_FAILED"


def gemini(a: Upstream) -> str:
    return f"""
        providers:
          g:
            kind: gemini
            api_key: very-secret-g
            base_url: {a.root_url}/v1beta
            retries: 0
            health_check: null
        targets:
          g1: {{provider: g, model: gemini-embedding-001}}
        routes:
          embed: {{targets: [g1]}}
    """


def batch_embeds(request: Request) -> Steps:
    """Answer as Gemini does, which takes 100 inputs at once."""
    texts = [one["content"]["parts"][0]["text"] for one in request.json["requests"]]
    return json_reply({"embeddings": [{"values": vector(text)} for text in texts]})


@pytest.mark.parametrize(
    ("code", "reason"), [(None, "INVALID_REQUEST"), ("context_length_exceeded", "CONTEXT_LENGTH_EXCEEDED")]
)
async def test_the_bad_one_of_many_inputs_is_named(code: str | None, reason: str) -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(refuses("bad", code))
        b.always(embeds)
        async with serving(one_space(a, b)) as served:
            failure = await fails(served.stub.Embed(ask("a", "b", "bad", "d", model="only-a")))
            assert served.breaker("a1") == "closed"
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", reason)
    assert violated(failure) == ["inputs[2]"]
    assert not b.requests


def violated(failure: Failure) -> list[str]:
    return [one.field for one in failure.detail(error_details_pb2.BadRequest).field_violations]


async def test_another_target_of_the_same_space_takes_over() -> None:
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({"error": {"message": "no"}}, 503))
        b.always(embeds)
        async with serving(one_space(a, b)) as served:
            response = await served.stub.Embed(ask("a", model="chat"))
    assert response.route.target == "b1"
    assert rows_of(response) == [vector("a")]


async def test_another_space_is_never_asked() -> None:
    """Two chat models in a route may both embed; their vectors do not mix, so only the first is asked."""
    async with Upstream() as a, Upstream() as b:
        a.always(json_reply({"error": {"message": "no"}}, 503))
        b.always(embeds)
        async with serving(two_targets(a, b)) as served:
            failure = await fails(served.stub.Embed(ask("a", model="chat")))
            assert failure.reason == "ALL_TARGETS_FAILED"
            assert "b1" not in repr(failure)
    assert len(a.requests) == 2
    assert not b.requests


async def test_an_answer_that_no_message_holds_is_refused_before_anybody_is_asked() -> None:
    async with Upstream() as a, Upstream() as b:
        text = "server: {max_send_bytes: 1048576}\n" + one_space(a, b)
        async with serving(text) as served:
            failure = await fails(served.stub.Embed(ask(*["a"] * 600, model="chat", dimensions=512)))
    assert (failure.code, violated(failure)) == ("INVALID_ARGUMENT", ["inputs"])
    assert "send at most" in failure.detail(error_details_pb2.BadRequest).field_violations[0].description
    assert not a.requests


async def test_an_answer_that_turns_out_too_large_is_refused_too() -> None:
    text = "server: {max_send_bytes: 70000}\n" + "\n".join(line[4:] for line in MOCK.splitlines())
    async with serving(text.replace("dimensions: 3", "dimensions: 4096")) as served:
        assert (await served.stub.Embed(ask("a", model="embed", dimensions=8))).dimensions == 8
        failure = await fails(served.stub.Embed(ask("a")))
        assert served.idle
    assert (failure.code, violated(failure)) == ("INVALID_ARGUMENT", ["inputs"])
