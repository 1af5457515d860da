"""Real vLLM on this machine's CPU, started once for all tests, and a router before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bench.engines import Engine, Models, engine, prepared_models
from modelrouter import AsyncClient
from tests.e2e.serving import Served, serving

CAPITAL = "What is the capital of France?"
TEMPLATE = Path(__file__).with_name("chat_with_tools.jinja")
CONTEXT = 2048
AT_ONCE = 2
"""How many requests an engine of these tests serves at once."""

CHAT_ARGUMENTS = (
    *("--max-model-len", str(CONTEXT), "--max-num-seqs", str(AT_ONCE), "--scheduling-policy", "priority"),
    *("--chat-template", str(TEMPLATE), "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
PATIENT = "timeouts: {first_token: 60s, idle: 60s, unary: 120s}"
"""What a model on two shared cores needs."""


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
async def engines(models: Models, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engines]:
    folder = tmp_path_factory.mktemp("engines")
    adapters = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapted={models.adapter}")
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        starts = [
            group.create_task(stack.enter_async_context(context))
            for context in (
                engine(folder, "first", models.chat, *CHAT_ARGUMENTS, *adapters),
                engine(folder, "second", models.chat, *CHAT_ARGUMENTS),
                engine(folder, "embedding", models.embedding, "--runner", "pooling"),
            )
        ]
        yield Engines(*[await start for start in starts])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(engines: Engines) -> AsyncIterator[Served]:
    text = f"""
        providers:
          first: {{kind: vllm, base_url: "{engines.first.base_url}", {PATIENT}}}
          embedding: {{kind: vllm, base_url: "{engines.embedding.base_url}", {PATIENT}}}
        targets:
          chat: {{provider: first, model: first}}
          adapted: {{provider: first, model: adapted}}
          missing: {{provider: first, model: missing}}
          embed: {{provider: embedding, model: embedding}}
        routes:
          chat: {{targets: [chat]}}
          adapted: {{targets: [adapted]}}
          missing: {{targets: [missing]}}
          embed: {{targets: [embed]}}
    """
    async with serving(text) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.target) as made:
        yield made
