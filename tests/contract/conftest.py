"""The contract's files, as buf reads them."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Buf = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def buf() -> Buf:
    """Run buf in a folder that holds a contract."""
    program = Path(sysconfig.get_path("scripts")) / "buf"

    def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, check=False)  # noqa: S603 - a tool of ours

    return run
