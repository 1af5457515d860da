"""Kinds whose libraries are not installed: what is said of them, and where."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router_server import Router
from router_server.app import StartError
from router_server.config import read
from router_server.core.provider import Surroundings
from router_server.providers import SetupError, load_kind
from tests.e2e.serving import serving

KINDS = [("litellm", "litellm"), ("sentence-transformers", "sentence_transformers")]


def configuration(kind: str) -> str:
    return f"""
        providers: {{p: {{kind: {kind}}}}}
        targets: {{t: {{provider: p, model: openai/embed-m}}}}
        routes: {{r: {{targets: [t]}}}}
    """


@pytest.fixture(params=KINDS, ids=lambda pair: pair[0])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kind, as where its library is not installed."""
    name, package = request.param
    monkeypatch.setitem(sys.modules, package, None)
    return str(name)


def said_of(kind: str) -> str:
    return rf"the provider p is of kind {kind}, .* run: pip install 'modelrouter-grpc\[{kind}\]'"


async def test_a_start_says_which_extra_to_install(kind: str) -> None:
    with pytest.raises(StartError, match=said_of(kind)):
        async with serving(configuration(kind)):
            pass


async def test_so_does_the_library(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(configuration(kind))
    with pytest.raises(SetupError, match=said_of(kind)):
        async with Router.from_config(file):
            pass


def test_a_configuration_can_be_checked_on_another_machine(kind: str) -> None:
    config = read(configuration(kind), {}, origin="test")
    assert config.capabilities("t") <= load_kind(kind).capabilities
    with pytest.raises(SetupError, match=said_of(kind)):
        load_kind(kind).create(config.providers["p"].settings, Surroundings("p"))
