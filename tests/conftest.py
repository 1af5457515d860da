from __future__ import annotations

from tests.secrecy import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]
