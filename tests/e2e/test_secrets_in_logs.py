"""A key that is in the configuration is masked wherever the log would say it."""

from __future__ import annotations

import logging

import pytest

from tests.e2e.serving import serving

TEXT = """
providers: {a: {kind: openai, api_key: "an-unusual-credential-4711", base_url: "http://127.0.0.1:1/v1"}}
targets: {t: {provider: a, model: m}}
routes: {chat: {targets: [t]}}
"""


async def test_a_configured_key_is_masked_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving(TEXT):
        logging.getLogger("some.library").warning("sending %s", "an-unusual-credential-4711")
    logged = capfd.readouterr().err
    assert "sending" in logged
    assert "an-unusual-credential-4711" not in logged
