"""Other gateways, in environments of their own: measured where `make bench-peers` has installed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, Final

import yaml

from bench.rig.process import BenchError, Process
from bench.rig.subjects import ROOT, Subject, Traffic

_LITELLM: Final = ROOT / ".venv-litellm" / "bin" / "litellm"
_PORTKEY: Final = (
    ROOT / "bench" / "peers" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
)
_NOT_INSTALLED: Final = "not installed; make bench-peers"

_LITELLM_TURN: Final = 5.0
"""Seconds of CPU for a turn of LiteLLM: every 2 to 4 s it collects all its garbage, for 0.5 to 0.7 s."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway runs, and what is behind it.

    Attributes:
        folder: for its files.
        core: the only one that it gets.
        port: on this machine.
        upstreams: base URLs by the name of the model that callers ask for.
    """

    folder: Path
    core: int
    port: int
    upstreams: Mapping[str, str]


def litellm(place: Place, otlp: str) -> Subject:
    """Start LiteLLM's proxy with what the router has on by default as well, by what LiteLLM offers for it.

    Prometheus' metrics, one trace in a hundred exported to ``otlp``, and the access log in a file, which it
    writes unless told otherwise.

    Raises:
        BenchError: it is not installed.
    """
    settings = {"num_retries": 0, "callbacks": ["prometheus", "otel"]}
    env = {
        "OTEL_EXPORTER": "otlp_http",
        "OTEL_ENDPOINT": otlp,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    return _litellm("LiteLLM", place, settings, env)


def lean_litellm(place: Place) -> Subject:
    """Start LiteLLM's proxy as fast as it can be: it neither measures, traces nor logs calls.

    Raises:
        BenchError: it is not installed.
    """
    return _litellm("lean-LiteLLM", place, {"num_retries": 0}, {"LITELLM_LOG": "ERROR"})


def _litellm(name: str, place: Place, settings: Mapping[str, Any], env: Mapping[str, str]) -> Subject:
    if not _LITELLM.exists():
        raise BenchError(_NOT_INSTALLED)
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": "openai/gpt-4o-mini", "api_base": base, "api_key": "sk-bench"},
        }
        for model, base in place.upstreams.items()
    ]
    config = place.folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"model_list": models, "litellm_settings": dict(settings)}))
    alike = {
        # Callers' keys are not checked, as ours are not.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # asks nobody on the Internet
    }
    command = [str(_LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)]
    process = Process(name, [*command, "--num_workers", "1"], place.core, place.folder, {**alike, **env})
    return Subject(name, process, place.port, place.folder, speaks_grpc=False, turn=_LITELLM_TURN)


def portkey(place: Place) -> Subject:
    """Start Portkey's gateway.

    Raises:
        BenchError: it is not installed, or Node is not.
    """
    node = which("node")
    if node is None:
        raise BenchError("node is not installed; Debian, Ubuntu: apt install nodejs npm")
    if not _PORTKEY.exists():
        raise BenchError(_NOT_INSTALLED)
    command = [node, str(_PORTKEY), f"--port={place.port}", "--headless"]
    process = Process("portkey", command, place.core, place.folder, {"NODE_ENV": "production"})

    def headers(traffic: Traffic) -> tuple[str, ...]:
        return ("x-portkey-provider: openai", f"x-portkey-custom-host: {place.upstreams[traffic.name]}")

    return Subject("Portkey", process, place.port, place.folder, speaks_grpc=False, headers=headers)
