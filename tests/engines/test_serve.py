"""A whole server whose provider is a child process: started, watched, restarted, put to sleep."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import Served, chat, fails, serving
from tests.engines.fakes import PATIENCE, FakeEngine, alive, fake, until


def config(engine: FakeEngine, extra: str = "", **keys: str) -> str:
    return f"""
        server: {{http_listen: null}}
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


def state(server: Served, name: str = "local") -> str:
    return server.server.assembly.engines[name].status.state.value


async def becomes(server: Served, wanted: str, name: str = "local") -> None:
    await until(lambda: state(server, name) == wanted)


def health(server: Served, name: str) -> bool:
    return server.server.health.state(name) == 1


async def said(server: Served, model: str = "chat") -> str:
    answer = await server.stub.Chat(chat(model), timeout=PATIENCE)
    return str(answer.message.content[0].text)


async def test_it_is_started_and_answers_and_ends_with_the_server(engine: FakeEngine) -> None:
    told: list[str] = []
    async with serving(config(engine), announce=told.append) as server:
        await becomes(server, "ready")
        ((pid,),) = engine.lives
        assert await said(server) == f"fake-model in {pid}"
    assert not alive(pid)
    assert told[0] == f"local: starting vLLM with fake-model; its log is {engine.folder}/log/local.log"
    assert told[1].startswith("local: ready after ")


async def test_until_it_is_ready_calls_go_to_the_next_target(engine: FakeEngine) -> None:
    engine.order("slow")
    async with serving(config(engine)) as server:
        await until(lambda: len(engine.lives) == 1)
        await until(lambda: health(server, "readiness"))
        assert state(server) == "starting"
        assert not health(server, "target/t")
        assert await said(server, "both") == "from the other"
        failure = await fails(server.stub.Chat(chat()))
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "ALL_TARGETS_FAILED")
        engine.order()
        await becomes(server, "ready")
        await until(lambda: health(server, "target/t"))
        assert (await said(server, "both")).startswith("fake-model")


async def test_until_it_is_ready_calls_wait_where_the_configuration_says_so(engine: FakeEngine) -> None:
    engine.order("slow")
    async with serving(config(engine, while_starting="queue")) as server:
        await until(lambda: len(engine.lives) == 1)
        waiting = asyncio.create_task(said(server, "both"))
        await until(lambda: server.limiter("local").queued == 1)
        late = await fails(server.stub.Chat(chat(), timeout=2))
        assert (late.reason, late.metadata["phase"]) == ("DEADLINE_EXCEEDED", "queue")
        assert not waiting.done()
        engine.order()
        assert (await waiting).startswith("fake-model")


async def test_who_waits_for_an_engine_that_fails_goes_to_the_next_target(engine: FakeEngine) -> None:
    engine.order("slow")
    async with serving(config(engine, while_starting="queue")) as server:
        await until(lambda: len(engine.lives) == 1)
        waiting = [asyncio.ensure_future(server.stub.Chat(chat("both"), timeout=PATIENCE)) for _ in range(2)]
        alone = asyncio.create_task(fails(server.stub.Chat(chat(), timeout=PATIENCE)))
        await until(lambda: server.limiter("local").queued == 3)
        engine.order("broken")
        psutil.Process(engine.lives[0][0]).kill()
        for response in await asyncio.gather(*waiting):
            assert response.message.content[0].text == "from the other"
            assert [one.target for one in response.route.attempts] == ["t", "o"]
        assert (await alone).reason == "ALL_TARGETS_FAILED"
        assert state(server) in {"failed", "starting"}
        assert server.breaker("t") == "closed"
        assert server.idle


async def test_a_required_engine_is_waited_for(engine: FakeEngine) -> None:
    engine.order("slow")
    async with serving(config(engine, ", required: true")) as server:
        await until(lambda: len(engine.lives) == 1)
        assert not health(server, "readiness")
        engine.order()
        await becomes(server, "ready")
        await until(lambda: health(server, "readiness"))


async def test_one_that_is_not_ready_in_time_is_started_again(engine: FakeEngine) -> None:
    engine.order("slow")
    told: list[str] = []
    async with serving(config(engine, start_timeout="1s"), announce=told.append) as server:
        await until(lambda: server.server.assembly.engines["local"].status.restarts > 0)
    assert any(line.startswith("local: it was not ready within 1 s; restart in") for line in told)
    assert not any(map(alive, [pid for pids in engine.lives for pid in pids]))


async def test_one_that_cannot_start_has_failed_and_is_tried_again(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.order("broken")
    told: list[str] = []
    async with serving(config(engine), announce=told.append) as server:
        await becomes(server, "failed")
        assert len(engine.lives) >= 5
        assert "local: it ended with exit code 3; restart in 0 s" in told
        engine.order()
        await becomes(server, "ready")
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first = next(line for line in logged if "cause" in line)
    assert first["cause"] == "it ended with exit code 3"
    assert first["output"] == "loading fake-model with"


async def test_an_interpreter_that_is_not_there_is_named(engine: FakeEngine) -> None:
    told: list[str] = []
    async with serving(config(engine, python="/nowhere/python"), announce=told.append):
        await until(lambda: any("exit code 127" in line for line in told))
    assert "cannot run /nowhere/python: No such file or directory" in engine.log


async def test_one_that_dies_is_restarted_and_calls_go_on_elsewhere(engine: FakeEngine) -> None:
    async with serving(config(engine, backoff="{first: 300ms, max: 1s}")) as server:
        await becomes(server, "ready")
        engine.order("dies")
        assert await said(server, "both") == "from the other"
        engine.order()
        await until(lambda: len(engine.lives) == 2)
        await becomes(server, "ready")
        await until(lambda: health(server, "target/t"))
        assert await said(server) == f"fake-model in {engine.lives[1][0]}"
        assert server.breaker("t") == "closed"


async def test_one_that_answers_no_check_is_restarted(engine: FakeEngine) -> None:
    quick = "{interval: 100ms, timeout: 300ms, failures: 2}"
    async with serving(config(engine, health_check=quick)) as server:
        await becomes(server, "ready")
        engine.order("mute")
        await until(lambda: state(server) != "ready")
        engine.order()
        await until(lambda: len(engine.lives) == 2)
        await becomes(server, "ready")


async def test_one_in_which_requests_stand_still_is_restarted(engine: FakeEngine) -> None:
    async with serving(config(engine, stuck_after="600ms")) as server:
        await becomes(server, "ready")
        await said(server)
        engine.order("stuck")
        await fails(server.stub.Chat(chat(), timeout=PATIENCE))
        await until(lambda: state(server) != "ready")
        engine.order()
        await until(lambda: len(engine.lives) == 2)
        await becomes(server, "ready")


async def test_one_that_is_idle_does_not_stand_still(engine: FakeEngine) -> None:
    async with serving(config(engine, stuck_after="200ms")) as server:
        await becomes(server, "ready")
        await said(server)
        await asyncio.sleep(0.8)
        assert len(engine.lives) == 1


async def test_two_engines_side_by_side(tmp_path: Path) -> None:
    engines = {name: fake(tmp_path, name) for name in ("one", "two")}
    providers = ", ".join(f"{n}: {{kind: vllm, serve: {e.serve(f'model-{n}')}}}" for n, e in engines.items())
    text = f"""
        providers: {{{providers}}}
        targets: {{a: {{provider: one, model: x}}, b: {{provider: two, model: x}}}}
        routes: {{a: {{targets: [a]}}, b: {{targets: [b]}}}}
    """
    async with serving(text) as server:
        await becomes(server, "ready", "one")
        await becomes(server, "ready", "two")
        assert (await said(server, "a")).startswith("model-one")
        assert (await said(server, "b")).startswith("model-two")
        engines["one"].order("dies")
        await fails(server.stub.Chat(chat("a")))
        assert (await said(server, "b")).startswith("model-two")
        engines["one"].order()
        await becomes(server, "ready", "one")
    assert len(engines["two"].lives) == 1


async def test_its_output_is_kept_by_name_and_in_bounds(engine: FakeEngine) -> None:
    engine.order("chatty")
    log = f"{{folder: '{engine.folder / 'log'}', max_bytes: 2000, files: 2}}"
    async with serving(config(engine, log=log)) as server:
        await becomes(server, "ready")
        await until(lambda: "[local] application startup complete" in engine.log)
    files = sorted((engine.folder / "log").iterdir())
    assert [file.name for file in files] == ["local.log", "local.log.1", "local.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)


async def test_two_routers_of_one_user_keep_its_output_apart(engine: FakeEngine) -> None:
    """Both would rotate the same file, and each lose what the other had written."""
    engine.order("chatty")
    log = f"{{folder: '{engine.folder / 'log'}', max_bytes: 2000, files: 2}}"
    told: list[str] = []
    async with (
        serving(config(engine, log=log)) as one,
        serving(config(engine, log=log), announce=told.append) as two,
    ):
        await becomes(one, "ready")
        await becomes(two, "ready")
        await until(lambda: engine.log.count("[local] application startup complete") == 2)
    assert told[0].endswith("; its log is " + str(engine.folder / "log" / "local-2.log"))
    names = sorted(file.name for file in (engine.folder / "log").iterdir())
    assert names == [f"local{own}.log{older}" for own in ("-2", "") for older in ("", ".1", ".2")]


async def test_its_output_is_kept_without_secrets(engine: FakeEngine) -> None:
    async with serving(config(engine, env=", FAKE_TOKEN: very-secret-token")) as server:
        await becomes(server, "ready")
    assert "[local] loading fake-model with ***\n" in engine.log
    assert "very-secret" not in engine.log


async def test_it_does_not_inherit_keys(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-o")
    monkeypatch.setenv("VLLM_API_KEY", "very-secret-of-another")
    text = config(engine).replace("kind: mock, reply: from the other", "kind: openai, api_key: very-secret-o")
    async with serving(text) as server:
        await becomes(server, "ready")
    (life,) = map(json.loads, engine.noted("lives"))
    assert life["keys"] == []
