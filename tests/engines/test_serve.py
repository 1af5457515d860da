"""A whole server whose provider is a child process: started, watched, restarted, ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.serving import Served, chat, serving
from tests.engines.fakes import FakeEngine, alive, fake, until


def config(engine: FakeEngine, extra: str = "", **keys: str) -> str:
    return f"""
        providers:
          local: {{kind: vllm, serve: {engine.serve(**keys)}{extra}}}
          other: {{kind: mock, reply: from the other}}
        targets:
          t: {{provider: local, model: fake-model}}
          o: {{provider: other, model: x}}
        routes:
          chat: {{targets: [t]}}
          both: {{targets: [t, o]}}
    """


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return fake(tmp_path)


async def ready(server: Served, name: str = "local") -> None:
    view = server.server.assembly.engines[name]
    await until(lambda: view.ready)


async def test_it_is_started_and_answers_and_ends_with_the_server(engine: FakeEngine) -> None:
    async with serving(config(engine)) as server:
        await ready(server)
        answer = await server.stub.Chat(chat())
        ((pid,),) = engine.lives
        assert answer.message.content[0].text == f"fake-model in {pid}"
    assert not alive(pid)
