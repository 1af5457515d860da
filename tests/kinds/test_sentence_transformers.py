"""The kind ``sentence-transformers`` with MiniLM: a real model, from a package, with no network."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from router_server.core.embedding import embed_all
from router_server.core.errors import Outcome, UpstreamError
from router_server.core.provider import Capability, Provider, Surroundings, UpstreamEmbed
from router_server.core.types import EmbeddingTask, EmbedRequest
from router_server.providers import SetupError
from router_server.providers.sentence_transformers import KIND
from tests.kinds.minilm import MINILM
from tests.providers.openai_talk import call

pytestmark = [pytest.mark.kinds, pytest.mark.asyncio(loop_scope="module")]

TEXTS = ("A cat sleeps.", "Revenue grew in the third quarter of the year.", "A kitten is asleep.")

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def provider_of(*models: str, **settings: Any) -> Provider:
    made: Provider = KIND.create(
        KIND.settings(**{"local_files_only": True, **settings}), Surroundings("local", models=models)
    )
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Provider]:
    made = provider_of(str(MINILM))
    yield made
    await made.close()


def asked(*texts: str, model: Path = MINILM, **fields: Any) -> UpstreamEmbed:
    options = fields.pop("options", {})
    return UpstreamEmbed(str(model), EmbedRequest("route", texts, **fields), options)


async def matrix_of(provider: Provider, request: UpstreamEmbed) -> Matrix:
    vectors = (await provider.embed(request)).vectors
    matrix: Matrix = np.frombuffer(vectors.data, "<f4").reshape(-1, vectors.dimensions)
    return matrix


async def refused(provider: Provider, request: UpstreamEmbed) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await embed_all(provider, request)
    return caught.value


async def test_like_texts_have_like_vectors(provider: Provider) -> None:
    assert await provider.check() is True
    cat, revenue, kitten = await matrix_of(provider, asked(*TEXTS))
    assert cat @ kitten > 0.6
    assert cat @ revenue < 0.2
    assert np.allclose(np.linalg.norm([cat, revenue, kitten], axis=1), 1, atol=1e-5)


async def test_usage_and_model(provider: Provider) -> None:
    answer = await provider.embed(asked("hello world"))
    assert answer.usage is not None
    assert answer.usage.input_tokens == 4
    assert answer.reported_model == str(MINILM)


async def test_the_order_is_the_callers_whatever_the_batches() -> None:
    provider = provider_of(str(MINILM), batch_size=3)
    texts = ("one two three four", "one", "one two", "one two three")
    together = await matrix_of(provider, asked(*texts))
    alone = np.stack([(await matrix_of(provider, asked(text)))[0] for text in texts])
    assert np.allclose(together, alone, atol=1e-5)
    await provider.close()


async def test_a_batch_that_fails_is_computed_one_by_one(provider: Provider, tmp_path: Path) -> None:
    """A tokenizer without a token for padding cannot put texts of different lengths together."""
    shutil.copytree(MINILM, tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = tmp_path / "model" / name
        known = json.loads(file.read_text())
        del known["pad_token"]
        file.write_text(json.dumps(known))
    tokenizer = tmp_path / "model" / "tokenizer.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "padding": None}))
    unpadded = provider_of(str(tmp_path / "model"))
    one_by_one = await matrix_of(unpadded, asked(*TEXTS, model=tmp_path / "model"))
    assert np.allclose(one_by_one, await matrix_of(provider, asked(*TEXTS)), atol=1e-5)
    await unpadded.close()


async def test_a_text_that_cannot_be_embedded_is_named(provider: Provider) -> None:
    error = await refused(provider, asked("fine", "half of a pair: \ud800", "fine too"))
    assert (error.outcome, error.reason, error.input_index) == (Outcome.INVALID_REQUEST, "input_refused", 1)


async def test_dimensions(provider: Provider) -> None:
    cutting = provider_of(str(MINILM), dimensions=(128,))
    for one, wanted, given in ((provider, 384, 384), (cutting, 128, 128), (cutting, None, 384)):
        matrix = await matrix_of(one, asked(*TEXTS, dimensions=wanted))
        assert matrix.shape == (3, given)
        assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)
    await cutting.close()


async def test_dimensions_that_the_model_was_not_trained_for(provider: Provider) -> None:
    error = await refused(provider, asked("a", dimensions=128))
    assert (error.outcome, error.reason) == (Outcome.INVALID_REQUEST, "dimensions_unsupported")


async def test_queries_may_be_told_from_documents(tmp_path: Path) -> None:
    shutil.copytree(MINILM, tmp_path / "model")
    config = tmp_path / "model" / "config_sentence_transformers.json"
    prompts = {"query": "What is asked: ", "document": ""}
    config.write_text(json.dumps({**json.loads(config.read_text()), "prompts": prompts}))
    provider = provider_of(str(tmp_path / "model"))
    model = tmp_path / "model"
    query = await matrix_of(provider, asked("a cat", model=model, task=EmbeddingTask.QUERY))
    document = await matrix_of(provider, asked("a cat", model=model, task=EmbeddingTask.DOCUMENT))
    said = await matrix_of(provider, asked("What is asked: a cat", model=model))
    assert np.allclose(query, said, atol=1e-5)
    assert not np.allclose(query, document, atol=1e-2)
    await provider.close()


async def test_a_model_as_it_is_without_normalizing(tmp_path: Path) -> None:
    shutil.copytree(MINILM, tmp_path / "model")
    modules = tmp_path / "model" / "modules.json"
    modules.write_text(json.dumps(json.loads(modules.read_text())[:2]))
    provider = provider_of(str(tmp_path / "model"), normalize=False)
    matrix = await matrix_of(provider, asked(*TEXTS, model=tmp_path / "model"))
    assert np.all(np.linalg.norm(matrix, axis=1) > 1.5)
    await provider.close()


async def test_cancelling_frees_the_thread(provider: Provider) -> None:
    """So many texts would take a minute; whoever comes next does not wait for them."""
    await provider.check()
    long = asyncio.create_task(provider.embed(asked(*(f"{n} " + "word " * 200 for n in range(5_000)))))
    await asyncio.sleep(0.1)  # not for a result: so that it has begun, where that makes a difference
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert (await matrix_of(provider, asked("next"))).shape == (1, 384)


async def test_the_loop_turns_meanwhile(provider: Provider) -> None:
    await provider.check()
    turns = 0
    computing = asyncio.create_task(provider.embed(asked(*(f"{n} " + "word " * 100 for n in range(16)))))
    while not computing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100


async def test_a_model_that_is_not_there_and_then_is(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    provider = provider_of(str(model))
    with pytest.raises(UpstreamError) as caught:
        await provider.check()
    assert (caught.value.outcome, caught.value.reason) == (Outcome.UNAVAILABLE, "not_loaded")
    error = await refused(provider, asked("a", model=model))
    assert (error.outcome, error.reason) == (Outcome.UNAVAILABLE, "not_loaded")
    shutil.copytree(MINILM, model, dirs_exist_ok=True)
    assert await provider.check() is True
    assert (await matrix_of(provider, asked("a", model=model))).shape == (1, 384)
    await provider.close()


async def test_a_device_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    provider = provider_of(str(MINILM), device="cuda:63")
    with pytest.raises(UpstreamError):
        await provider.check()
    assert "a device that it has" in caplog.text
    await provider.close()


async def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(SetupError, match="provider local has a model /no/such/folder"):
        provider_of("/no/such/folder")


async def test_it_only_embeds(provider: Provider) -> None:
    assert Capability.CHAT not in KIND.capabilities
    with pytest.raises(UpstreamError) as caught:
        await provider.chat(call())
    assert caught.value.reason == "chat_unsupported"
    with pytest.raises(UpstreamError):
        provider.stream(call())
    error = await refused(provider, asked("a", options={"device": "cpu"}))
    assert error.reason == "unknown_option"
