"""Other gateways, in environments of their own: measured where `make bench-peers` has installed them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Final

import yaml

from bench.rig.process import Process
from bench.rig.subjects import ROOT, Subject, Traffic

_LITELLM: Final = ROOT / ".venv-litellm" / "bin" / "litellm"
_PORTKEY: Final = (
    ROOT / "bench" / "peers" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
)


def litellm(folder: Path, core: int, port: int, upstreams: Mapping[str, str]) -> Subject | None:
    """Start LiteLLM's proxy, with one worker, no database, and a log of errors alone.

    Returns None where it is not installed.
    """
    if not _LITELLM.exists():
        return None
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/gpt-4o-mini", "api_base": base, "api_key": "sk-bench"},
        }
        for name, base in upstreams.items()
    ]
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": models, "litellm_settings": {"num_retries": 0}}))
    env = {
        "LITELLM_LOG": "ERROR",
        # As fast as it can be: callers' keys are not checked, as ours are not.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # asks nobody on the Internet
    }
    command = [str(_LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    process = Process("litellm", [*command, "--num_workers", "1"], core, folder, env)
    return Subject("LiteLLM", process, port, folder, speaks_grpc=False)


def portkey(folder: Path, core: int, port: int, upstreams: Mapping[str, str]) -> Subject | None:
    """Start Portkey's gateway.

    Returns None where it is not installed.
    """
    node = which("node")
    if node is None or not _PORTKEY.exists():
        return None
    command = [node, str(_PORTKEY), f"--port={port}", "--headless"]
    process = Process("portkey", command, core, folder, {"NODE_ENV": "production"})

    def headers(traffic: Traffic) -> tuple[str, ...]:
        return ("x-portkey-provider: openai", f"x-portkey-custom-host: {upstreams[traffic.name]}")

    return Subject("Portkey", process, port, folder, speaks_grpc=False, headers=headers)
