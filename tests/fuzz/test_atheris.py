"""The properties of `tests.fuzz.properties`, under a fuzzer that sees which branches its bytes reach."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import SEEDS

SECONDS = 60
ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.parametrize("name", SEEDS)
async def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    for number, seed in enumerate(SEEDS[name]):
        (tmp_path / str(number)).write_bytes(seed)
    limits = (
        f"-max_total_time={SECONDS}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={tmp_path}/",
    )
    fuzzing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz.target", name, str(tmp_path), *limits),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await fuzzing.communicate()
    assert fuzzing.returncode == 0, said.decode(errors="replace")[-4_000:]
    assert b"Done " in said, "the fuzzer did not run"
