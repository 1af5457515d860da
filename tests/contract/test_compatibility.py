"""The contract may grow, never break: `buf breaking` against the committed baseline sees to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2 as pb

from tests.contract.conftest import ROOT, Buf

BASELINE = "protos/baseline.binpb"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path


def edit(copy: Path, file: str, old: str, new: str) -> None:
    path = copy / "protos/modelrouter/v1" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} does not have {old!r} once"
    path.write_text(text.replace(old, new))


def test_the_contract_is_clean_and_keeps_the_baseline(buf: Buf) -> None:
    assert buf("lint").returncode == 0
    assert buf("format", "--diff", "--exit-code").returncode == 0
    assert buf("breaking", "--against", BASELINE).returncode == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("chat.proto", "  string user_id = 11;", "", "user_id"),
        ("chat.proto", "string user_id = 11;", "string user_id = 12;", "user_id"),
        ("chat.proto", "string user_id = 11;", "bytes user_id = 11;", "user_id"),
        ("chat.proto", "string user_id = 11;", "string end_user = 11;", "end_user"),
        ("chat.proto", "string user_id = 11;", "repeated string user_id = 11;", "user_id"),
        ("common.proto", "OUTCOME_TIMEOUT = 9;", "OUTCOME_TOO_SLOW = 9;", "OUTCOME_TOO_SLOW"),
        (
            "service.proto",
            "returns (stream StreamChatResponse)",
            "returns (StreamChatResponse)",
            "StreamChat",
        ),
        (
            "service.proto",
            "rpc ListModels(ListModelsRequest) returns (ListModelsResponse);",
            "",
            "ListModels",
        ),
    ],
)
def test_a_breaking_change_is_caught(buf: Buf, copy: Path, file: str, old: str, new: str, named: str) -> None:
    edit(copy, file, old, new)

    checked = buf("breaking", "--against", BASELINE, cwd=copy)

    assert checked.returncode != 0
    assert named in checked.stdout.decode()


def test_growth_is_allowed(buf: Buf, copy: Path) -> None:
    edit(copy, "chat.proto", "string user_id = 11;", "string user_id = 11;\n  string tenant = 12;")

    assert buf("breaking", "--against", BASELINE, cwd=copy).returncode == 0


def test_the_baseline_is_the_whole_contract(buf: Buf) -> None:
    """An empty or partial baseline would let everything pass."""
    baseline = pb.FileDescriptorSet.FromString((ROOT / BASELINE).read_bytes())
    today = pb.FileDescriptorSet.FromString(buf("build", "-o", "-").stdout)

    held = {file.name for file in baseline.file if file.package == "modelrouter.v1"}

    assert held == {file.name for file in today.file if file.package == "modelrouter.v1"}
