"""Where and for how long a router of one's own can be used: loops, threads, forks, the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import router_server
from router_server import NotRunningError, Router, RouterError
from router_server.core.errors import Outcome
from tests.e2e.serving import CHAT_PATH, answer, pieces
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
providers: {m: {kind: mock, reply: "REPLY two three", tokens_per_second: SPEED}}
targets: {t: {provider: m, model: x}}
routes: {chat: {targets: [t]}}
"""


def write(folder: Path, reply: str = "one", speed: float = 1000) -> Path:
    path = folder / f"{reply}.yaml"
    path.write_text(CONFIG.replace("REPLY", reply).replace("SPEED", str(speed)))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "router"]


async def test_routers_live_beside_each_other(tmp_path: Path) -> None:
    async with Router.from_config(write(tmp_path, "a")) as a, Router.from_config(write(tmp_path, "b")) as b:
        assert [(await one.chat("hi")).text for one in (a, b, a)] == [
            "a two three",
            "b two three",
            "a two three",
        ]
        assert (a.stats().calls, b.stats().calls) == (2, 1)


async def test_it_is_closed_once_and_can_be_opened_again(path: Path) -> None:
    router = Router.from_config(path)
    with pytest.raises(NotRunningError, match="inside `async with`"):
        await router.chat("hi")
    await router.__aexit__()
    for calls in (1, 2):
        async with router:
            with pytest.raises(RuntimeError, match="open already"):
                await router.__aenter__()
            await router.chat("hi")
        await router.__aexit__()
        assert router.stats().calls == calls, "what it was when it was closed"
        with pytest.raises(NotRunningError):
            await router.chat("hi")


def test_the_blocking_one_is_closed_once_too(path: Path) -> None:
    router = Router.from_config(path)
    with router as blocking:
        assert blocking.chat("hi").text == "one two three"
        with pytest.raises(RuntimeError, match="open already"):
            router.__enter__()
        pieces_ = blocking.stream_chat("hi")
        assert next(pieces_)
    blocking.end()
    with pytest.raises(NotRunningError, match="is closed"):
        next(pieces_)
    with pytest.raises(NotRunningError, match="is closed"):
        blocking.chat("hi")
    assert blocking.stats().succeeded == 1


async def test_code_that_blocks_may_run_inside_a_loop(path: Path) -> None:
    with Router.from_config(path) as router:
        assert router.chat("hi").text == "one two three"


def test_a_call_that_runs_when_another_thread_closes_ends_with_an_error(tmp_path: Path) -> None:
    raised: list[Exception] = []
    begun = threading.Event()

    def ask() -> None:
        try:
            for _piece in router.stream_chat("hi"):
                begun.set()
        except (NotRunningError, RouterError) as error:
            raised.append(error)

    with Router.from_config(write(tmp_path, speed=0.2)) as router:
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(raised) == 3


async def test_another_loop_is_told_so(path: Path) -> None:
    async with Router.from_config(path) as router:
        with pytest.raises(NotRunningError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(_text(router)))


async def _text(router: Router) -> str:
    return (await router.chat("hi")).text


OPEN = "Router.from_config({path!r}).__enter__()"
OPEN_ASYNC = "asyncio.new_event_loop().run_until_complete(Router.from_config({path!r}).__aenter__())"


@pytest.mark.parametrize(("how", "words"), [(OPEN, "with"), (OPEN_ASYNC, "async with")])
def test_nobody_closes_it_and_python_says_so(path: Path, how: str, words: str) -> None:
    opening = how.format(path=str(path))
    code = f"import asyncio, gc\nfrom router_server import Router\nkept = {opening}\ndel kept\ngc.collect()"
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)  # noqa: S603 - ours
    assert f"was not closed; use `{words}`" in done.stderr


def test_beyond_a_fork_it_says_so_and_one_of_ones_own_works(path: Path) -> None:
    code = f"""
import os, sys
from router_server import NotRunningError, Router

with Router.from_config({str(path)!r}) as router:
    router.chat("hi")
    child = os.fork()
    if child == 0:
        try:
            router.chat("hi")
        except NotRunningError as error:
            with Router.from_config({str(path)!r}) as own:
                print(error, "|", own.chat("hi").text, flush=True)
        router.end()
        os._exit(0)
    _pid, code = os.waitpid(child, 0)
    print(router.chat("hi").text, code)
"""
    said = run(code)
    assert "opened before this process was forked; open one after it | one two three\n" in said
    assert said.endswith("one two three 0\n")


def test_a_program_that_never_closes_it_ends_all_the_same(path: Path) -> None:
    code = f"""
from router_server import Router
router = Router.from_config({str(path)!r}).__enter__()
print(router.chat("hi").text)
"""
    assert run(code, "-W", "ignore") == "one two three\n"


def test_what_it_raises_has_a_name_at_the_top() -> None:
    for name in router_server.__all__:
        assert isinstance(getattr(router_server, name), type)
    assert issubclass(NotRunningError, RuntimeError)


async def test_leaving_with_an_exception_cancels_what_runs_and_closes() -> None:
    async with Upstream() as upstream:
        upstream.always((*SSE_HEAD, event(pieces("a", finish=None)[0]), End.STALL))
        env = {"LLM_ENDPOINTS": f"m@{upstream.base_url}", "LLM_HEALTH_CHECK": "off"}

        async def leave() -> None:
            async with Router.from_env(env) as router:
                async for _piece in router.stream_chat("hi"):
                    raise LookupError

        with pytest.raises(LookupError):
            await leave()
        async with asyncio.timeout(20):
            await upstream.connections[0].closed.wait()


async def test_the_environment_sets_checks_and_times() -> None:
    async with Upstream() as late, Upstream() as quick:
        late.on("/v1/models", json_reply({"object": "list", "data": []})).on(CHAT_PATH, (End.STALL,))
        quick.on("/v1/models", json_reply({"object": "list", "data": []}))
        quick.on(CHAT_PATH, json_reply(answer("quick")))
        env = {
            "LLM_ENDPOINTS": f"m@{late.base_url}, m@{quick.base_url}",
            "LLM_HEALTH_CHECK": "200ms",
            "LLM_TIMEOUT": "500ms",
        }
        async with Router.from_env(env) as router, asyncio.timeout(40):
            reply = await router.chat("hi")
            assert (reply.text, reply.target) == ("quick", "endpoint-2")
            assert reply.result.trail.attempts[0].outcome is Outcome.TIMEOUT
            while sum(request.path == "/v1/models" for request in quick.requests) < 3:
                await quick.requested(len(quick.requests) + 1)
        for on in ("on", ""):
            checked = Router.from_env({**env, "LLM_HEALTH_CHECK": on})._config.providers["endpoint-1"]
            assert checked.health_check is not None
            assert checked.health_check.interval == 60
            assert checked.timeouts.idle == 0.5


def run(code: str, *options: str) -> str:
    """Return what Python prints."""
    command = [sys.executable, "-W", "error", *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    return done.stdout
