"""Real vLLM on this machine's CPU, run by a router's ``serve`` once for all tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bench.engines import Engine, Models, prepared_models, serve
from modelrouter import AsyncClient
from router_server.core.engine import EngineState
from tests.e2e.serving import Served, serving

CAPITAL = "What is the capital of France?"
TEMPLATE = Path(__file__).with_name("chat_with_tools.jinja")
CONTEXT = 2048
AT_ONCE = 2
"""How many requests an engine of these tests serves at once."""

CHAT_ARGUMENTS = (
    *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(AT_ONCE), "--scheduling-policy", "priority"),
    *("--chat-template", str(TEMPLATE), "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # In bfloat16 a small model's two best tokens are often equally likely: which of them is chosen depends on
    # whether the text before was generated or read.
    *("--dtype", "float32"),
    *("--enable-per-request-metrics", "--enable-prompt-tokens-details"),
)
EITHER = "either"
"""A name that both chat engines serve their model by, beside their own."""
ADAPTERS = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules")
PATIENT = "timeouts: {first_token: 60s, idle: 60s, unary: 120s}"
"""What a model on two shared cores needs."""

_START = 400.0
"""Seconds that three starts at once may take: some 45 s where two cores are free."""


@dataclass(frozen=True)
class Engines:
    """Two servers with the same chat model, and one with the embedding model."""

    first: Engine
    second: Engine
    embedding: Engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def models() -> Models:
    return await prepared_models()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(models: Models, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    log = tmp_path_factory.mktemp("engines")
    adapters = (*ADAPTERS, f"adapted={models.adapter}")
    text = f"""
        providers:
          first:
            kind: vllm
            {PATIENT}
            serve: {serve(models.chat, "first", log, *CHAT_ARGUMENTS, *adapters, *_names("first"))}
          second:
            kind: vllm
            {PATIENT}
            serve: {serve(models.chat, "second", log, *CHAT_ARGUMENTS, *_names("second"))}
          embedding:
            kind: vllm
            {PATIENT}
            serve: {serve(models.embedding, "embedding", log, "--runner", "pooling")}
        targets:
          chat: {{provider: first, model: first}}
          second: {{provider: second, model: second}}
          adapted: {{provider: first, model: adapted}}
          missing: {{provider: first, model: missing}}
          embed: {{provider: embedding, model: embedding}}
        routes:
          chat: {{targets: [chat]}}
          second: {{targets: [second]}}
          adapted: {{targets: [adapted]}}
          missing: {{targets: [missing]}}
          embed: {{targets: [embed]}}
    """
    async with serving(text) as server:
        try:
            async with asyncio.timeout(_START):
                await _all_ready(server)
        except TimeoutError:
            pytest.fail("\n".join(path.read_text()[-3000:] for path in log.iterdir()))
        yield server


@pytest.fixture(scope="session")
def engines(served: Served) -> Engines:
    upstreams = served.server.assembly.upstreams
    sockets = {name: Path(upstreams[name].provider.address[0]) for name in ("first", "second", "embedding")}
    return Engines(**{name: Engine(socket) for name, socket in sockets.items()})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.target) as made:
        yield made


def _names(own: str) -> tuple[str, ...]:
    """Return the arguments by which an engine goes by two names; of vLLM's arguments the last counts."""
    return ("--served-model-name", own, EITHER)


async def _all_ready(server: Served) -> None:
    views = server.server.assembly.engines.values()
    while any(view.status.state is not EngineState.READY for view in views):  # noqa: ASYNC110 - seen as others see it
        await asyncio.sleep(0.1)
