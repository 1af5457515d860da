"""Keys are never shown: a net under the whole suite.

Every key that a test gives to the product contains `MARK`; a signed token is known by its form. What the
product puts out is looked through where it comes out: what a test's process and the processes that it starts
write to standard output and error (the log is there), by a hook of pytest; and by `must_not_show`, called by
the parts that tests share, what collectors receive, what callers are told, and how things show themselves.

The log as Python's loggers hear it is not looked at: the product masks keys where it writes.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

MARK = "very-secret"

_SECRET = re.compile(rf"{MARK}|eyJ[\w-]{{8,}}\.[\w-]{{8,}}\.[\w-]{{8,}}")


def must_not_show(what: str, *shown: object) -> None:
    """Fail where a key is in the text or the bytes of ``shown``, or in how any other thing shows itself."""
    for one in shown:
        text = one.decode("latin-1") if isinstance(one, bytes) else f"{one!s} {one!r}"
        found = _SECRET.search(text)
        assert found is None, f"{what} shows a key: …{text[max(0, found.start() - 60) : found.start() + 40]}…"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that passed while a key was written to standard output or error."""
    report = yield
    for title, text in report.sections:
        if report.passed and "log" not in title and _SECRET.search(text):
            report.outcome = "failed"
            report.longrepr = f"a key is in what was written ({title}); see tests/secrecy.py"
    return report
