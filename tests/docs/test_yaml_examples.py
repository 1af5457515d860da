"""Every YAML example is what it claims to be: a configuration that loads, or probes that fit the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_server.cli import _parser
from router_server.config import Config, read
from router_server.rpc.health import HealthBoard
from tests.docs.pages import DOCS, ROOT, Block, blocks, written

ENV = {"OPENAI_API_KEY": "key", "GEMINI_API_KEY": "key"}
_FILE = re.compile(r"(?<=: )[\w/]+\.(?:yaml|pem|key)\b")
"""A relative path in an example."""
DRAINING = DOCS / "draining.md"


def completed(text: str) -> str:
    """Return the example with the sections that it leaves out: a target per provider, a route per target."""
    given = yaml.safe_load(text)
    providers = given.get("providers", {"m": {"kind": "mock"}})
    targets = given.get("targets", {name: {"provider": name, "model": "m"} for name in providers})
    routes = {name: {"targets": [name]} for name in targets}
    whole = {"providers": providers, "targets": targets, "routes": routes}
    left_out = {section: content for section, content in whole.items() if section not in given}
    return f"{text}\n{yaml.safe_dump(left_out) if left_out else ''}"


def configurations() -> list[Block]:
    found = [block for page in written() for block in blocks(page, "yaml")]
    return [block for block in found if block.page != DRAINING]


@pytest.mark.parametrize("block", configurations(), ids=str)
def test_a_configuration_loads(block: Block, tmp_path: Path) -> None:
    given = yaml.safe_load(block.text)
    for name in _FILE.findall(block.text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = read(completed(block.text), ENV, origin=str(block), folder=tmp_path)
    assert set(given) <= set(Config.model_fields)
    assert config.routes


def test_the_example_file_loads() -> None:
    path = ROOT / "router.example.yaml"
    assert read(path.read_text(), ENV, origin=path.name, folder=ROOT).routes


def test_the_probes_of_kubernetes_fit_the_server() -> None:
    (block,) = blocks(DRAINING, "yaml")
    pod = yaml.safe_load(block.text)
    (container,) = pod["containers"]
    server = read(completed("server: {}"), {}, origin="defaults").server

    assert pod["terminationGracePeriodSeconds"] > server.drain_delay + server.drain_grace
    assert _seconds(container["readinessProbe"]) < server.drain_delay
    board, ports = HealthBoard(), [port["containerPort"] for port in container["ports"]]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["grpc"]
        assert board.state(asked["service"]) is not None, probe
        assert asked["port"] in ports

    command, *arguments = container["command"]
    assert command == "router-server"
    assert _parser().parse_args(arguments).listen == f"0.0.0.0:{ports[0]}"


def _seconds(probe: dict[str, Any]) -> int:
    return int(probe["periodSeconds"] * probe["failureThreshold"])
