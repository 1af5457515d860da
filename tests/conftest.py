"""What holds for every test: no key in any output, and the root logger as the test found it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.secrecy import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def root_logger_as_found() -> Iterator[None]:
    """Give the root logger back: servers in one process that overlap each restore what the other had set."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
