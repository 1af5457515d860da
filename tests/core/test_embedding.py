from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from router_server.core.errors import Outcome, Reason, RouterError
from router_server.core.provider import Capability, UpstreamEmbed
from router_server.core.target import TargetSettings
from router_server.core.types import Embeddings, EmbedRequest, Routing, Usage, Vectors
from tests.clock import virtual_time
from tests.core.scripted import ALL, Rig, fails, invocation, rig


def vectors(call: UpstreamEmbed) -> Embeddings:
    values = [struct.pack("<2f", len(text), 1.0) for text in call.request.inputs]
    return Embeddings(Vectors(2, b"".join(values)), Usage(len(values), 0), "embedder-1")


def refusing(bad: str, outcome: Outcome) -> Callable[[UpstreamEmbed], Embeddings]:
    def embed(call: UpstreamEmbed) -> Embeddings:
        if bad in call.request.inputs:
            raise fails(outcome, "http_400", status=400)
        return vectors(call)

    return embed


def embedding_rig(count: int = 1, **more: object) -> Rig:
    r = rig(*[[[]] for _ in range(count)], **more)  # type: ignore[arg-type]
    for provider in r.providers.values():
        provider.embedder = vectors
    return r


def ask(*inputs: str, **more: object) -> EmbedRequest:
    return EmbedRequest("r", inputs, **more)  # type: ignore[arg-type]


@virtual_time
async def test_inputs_go_in_batches_and_come_back_in_order() -> None:
    r = embedding_rig()
    inputs = ["x" * n for n in range(1, 9)]
    result = await r.router.embed(ask(*inputs), invocation())
    assert [len(c.request.inputs) for c in r.providers["a"].embeds] == [3, 3, 2]
    assert struct.unpack("<16f", result.vectors.data)[::2] == tuple(range(1, 9))
    assert result.usage == Usage(8, 0)
    assert (result.vectors.rows, result.vectors.dimensions) == (8, 2)
    assert result.trail.reported_model == "embedder-1"
    assert r.idle


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.INVALID_REQUEST, Reason.INVALID_REQUEST),
        (Outcome.CONTEXT_LENGTH, Reason.CONTEXT_LENGTH_EXCEEDED),
    ],
)
@virtual_time
async def test_a_refused_batch_is_tried_one_by_one_so_that_the_error_names_the_input(
    outcome: Outcome, reason: Reason
) -> None:
    r = embedding_rig()
    r.providers["a"].embedder = refusing("bad", outcome)
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("a", "b", "c", "d", "bad"), invocation())
    assert caught.value.reason is reason
    assert caught.value.violations[0].field == "inputs[4]"
    assert [c.request.inputs for c in r.providers["a"].embeds] == [
        ("a", "b", "c"),
        ("d", "bad"),
        ("d",),
        ("bad",),
    ]
    assert r.idle


@virtual_time
async def test_a_batch_that_is_refused_only_as_a_whole_is_answered_one_by_one() -> None:
    r = embedding_rig()

    def one_at_a_time(call: UpstreamEmbed) -> Embeddings:
        if len(call.request.inputs) > 1:
            raise fails(Outcome.INVALID_REQUEST)
        return vectors(call)

    r.providers["a"].embedder = one_at_a_time
    result = await r.router.embed(ask("a", "bb", "ccc"), invocation())
    assert struct.unpack("<6f", result.vectors.data)[::2] == (1, 2, 3)


@virtual_time
async def test_a_failure_is_all_or_nothing_and_fails_over_within_the_space() -> None:
    same = {n: TargetSettings(n, f"model-{n}", ALL, embedding_space="s") for n in "ab"}
    r = embedding_rig(2, overrides=same, retries=0)
    r.providers["a"].scripts = [[], [fails(Outcome.UNAVAILABLE)]]
    result = await r.router.embed(ask("1", "2", "3", "4"), invocation())
    assert result.trail.target == "b"
    assert result.vectors.rows == 4
    assert len(r.providers["b"].embeds) == 2


@virtual_time
async def test_another_space_is_never_an_answer() -> None:
    r = embedding_rig(2, retries=0)
    r.providers["a"].scripts = [[fails(Outcome.UNAVAILABLE)]]
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("1"), invocation())
    assert caught.value.reason is Reason.ALL_TARGETS_FAILED
    assert not r.providers["b"].embeds
    for _ in range(6):
        with pytest.raises(RouterError):
            await r.router.embed(ask("1"), invocation())
    assert not r.providers["b"].embeds, "not even while the first one's breaker is open"


@virtual_time
async def test_the_same_model_is_the_same_space() -> None:
    same = {n: TargetSettings(n, "one-model", ALL) for n in "ab"}
    r = embedding_rig(2, overrides=same, retries=0)
    r.providers["a"].scripts = [[fails(Outcome.UNAVAILABLE)]]
    assert (await r.router.embed(ask("1"), invocation())).trail.target == "b"


@pytest.mark.parametrize(
    ("data", "dimensions", "reason"),
    [(b"\0" * 8, 2, "wrong_number_of_vectors"), (b"\0" * 24, 2, "wrong_number_of_vectors")],
)
@virtual_time
async def test_a_wrong_number_of_vectors_is_malformed(data: bytes, dimensions: int, reason: str) -> None:
    r = embedding_rig()
    r.providers["a"].embedder = lambda _call: Embeddings(Vectors(dimensions, data), None)
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("1", "2"), invocation())
    assert (caught.value.attempts[0].outcome, caught.value.attempts[0].error_reason) == (
        Outcome.MALFORMED,
        reason,
    )


@virtual_time
async def test_batches_of_different_dimensions_are_malformed() -> None:
    r = embedding_rig()

    def growing(call: UpstreamEmbed) -> Embeddings:
        dimensions = len(r.providers["a"].embeds)
        return Embeddings(Vectors(dimensions, b"\0" * 4 * dimensions * len(call.request.inputs)), None)

    r.providers["a"].embedder = growing
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("1", "2", "3", "4"), invocation())
    assert caught.value.attempts[0].error_reason == "mixed_dimensions"


@virtual_time
async def test_usage_is_estimated_unless_every_batch_reports_it() -> None:
    r = embedding_rig()
    r.providers["a"].embedder = lambda call: Embeddings(vectors(call).vectors, None)
    result = await r.router.embed(ask("12345678"), invocation())
    assert result.usage == Usage(2, 0, estimated=True)


@virtual_time
async def test_embedding_needs_are_needs() -> None:
    overrides = {"a": TargetSettings("a", "m", ALL - {Capability.EMBED_DIMENSIONS})}
    r = embedding_rig(overrides=overrides)
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("1", dimensions=5), invocation())
    assert caught.value.metadata == {"capability": "embed_dimensions"}
    with pytest.raises(RouterError) as caught:
        await r.router.embed(ask("1", routing=Routing(allowed_targets=("x",))), invocation())
    assert caught.value.reason is Reason.INVALID_REQUEST


@virtual_time
async def test_a_filtered_input_is_named() -> None:
    r = embedding_rig()
    r.providers["a"].embedder = refusing("bad", Outcome.CONTENT_FILTER)
    with pytest.raises(RouterError, match=r"inputs\[1\]") as caught:
        await r.router.embed(ask("good", "bad"), invocation())
    assert caught.value.reason is Reason.CONTENT_FILTERED
