from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.state.servers import SharedServer, shared_server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


@pytest.fixture
def redis(folder: Path) -> Iterator[SharedServer]:
    with shared_server(folder) as running:
        yield running
