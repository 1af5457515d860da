"""Vectors as they come: with numpy, without it, and when they do not fit the question."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from modelrouter import Embeddings, MalformedAnswer
from tests.client.scripted import ROUTE, ScriptedRouter, embedded
from tests.client.shells import Shell

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3) / np.float32(3)


async def test_vectors_are_a_float32_matrix(router: ScriptedRouter, shell: Shell) -> None:
    router.play([embedded(2, 3, MATRIX.astype("<f4").tobytes())])

    embeddings = await shell.embed(["a", "b"])

    assert embeddings.vectors.dtype == np.float32
    assert np.array_equal(embeddings.vectors, MATRIX)
    assert embeddings.vectors is embeddings.vectors
    assert embeddings.dimensions == 3
    assert embeddings.usage.input_tokens == 4
    assert embeddings.route == ROUTE
    assert repr(embeddings) == "Embeddings(2 x 3, model='embed')"


async def test_it_is_a_sequence_and_an_array(router: ScriptedRouter, shell: Shell) -> None:
    router.play([embedded(2, 3, MATRIX.tobytes())])

    embeddings = await shell.embed(["a", "b"])

    assert len(embeddings) == 2
    assert np.array_equal(embeddings[1], MATRIX[1])
    assert np.array_equal(embeddings[:1], MATRIX[:1])
    assert np.array_equal(list(embeddings), MATRIX)
    assert np.array_equal(np.asarray(embeddings), MATRIX)
    assert np.asarray(embeddings, dtype=np.float64).dtype == np.float64
    assert np.shares_memory(np.asarray(embeddings), embeddings.vectors)
    assert not np.shares_memory(np.array(embeddings, copy=True), embeddings.vectors)
    with pytest.raises(ValueError, match="without a copy"):
        embeddings.__array__(np.float64, copy=False)


async def test_the_matrix_is_the_callers_to_change(router: ScriptedRouter, shell: Shell) -> None:
    router.play([embedded(2, 3, MATRIX.tobytes())])
    embeddings = await shell.embed(["a", "b"])

    embeddings.vectors[0] = 0

    assert not np.asarray(embeddings)[0].any()


async def test_a_single_text_gives_one_row(router: ScriptedRouter, shell: Shell) -> None:
    router.play([embedded(1, 3, MATRIX[0].tobytes())])

    assert (await shell.embed("a")).vectors.shape == (1, 3)
    assert [each.text for each in router.calls[0].request.inputs] == ["a"]


async def test_a_missing_vector_is_noticed(router: ScriptedRouter, shell: Shell) -> None:
    router.play([embedded(2, 3, MATRIX.tobytes())])

    with pytest.raises(MalformedAnswer, match="24 bytes of vectors where 3 inputs in 3 dimensions take 36"):
        await shell.embed(["a", "b", "c"])


def test_no_inputs_are_no_vectors() -> None:
    assert Embeddings(embedded(0, 3, b""), 0).vectors.shape == (0, 3)


def test_without_numpy_rows_are_arrays() -> None:
    program = """
import sys
sys.modules["numpy"] = None
from modelrouter import Embeddings
from modelrouter.v1.embed_pb2 import EmbedResponse
import struct
raw = EmbedResponse(dimensions=2, matrix_le_f32=struct.pack("<4f", 1, 2, 3, 4.5))
embeddings = Embeddings(raw, 2)
print(embeddings.vectors, embeddings[1], [list(row) for row in embeddings])
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[0] == (
        "[array('f', [1.0, 2.0]), array('f', [3.0, 4.5])] array('f', [3.0, 4.5]) [[1.0, 2.0], [3.0, 4.5]]"
    )
