"""A copy of the project with nothing installed in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("Makefile", "pyproject.toml", "LICENSE", "tools", "requirements", "clients/python", "router_server")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of what `make run` needs, with nothing installed."""
    folder = tmp_path / "clone"
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    return folder
