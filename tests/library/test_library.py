"""The router without a server: from a file or the environment, with async and without, as on its page."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from router_server import Router
from router_server.config import ConfigError
from router_server.core.errors import Reason, RouterError
from tests.e2e.serving import CHAT_PATH, EMBED_PATH, answer, pieces
from tests.upstream import SSE_HEAD, End, Upstream, event, json_reply

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
providers:
  down: {kind: mock, fail: always}
  m: {kind: mock, reply: "one two three"}
targets:
  d: {provider: down, model: x}
  t: {provider: m, model: x, price: {input: 1, output: 2}}
routes:
  chat: {targets: [d, t]}
  embed: {targets: [t]}
  dead: {targets: [d]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "router.yaml"
    file.write_text(CONFIG)
    return file


def test_what_only_a_server_has_is_left_out_aloud(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = f"[{{name: a, sha256: {'0' * 64}}}]"
    path.write_text(f"{CONFIG}auth: {{api_keys: {keys}}}\ntelemetry: {{sample_ratio: 0.5}}\n")
    with Router.from_config(path) as router:
        assert [router.chat("hi").target for _ in range(3)] == ["t"] * 3
    assert "do nothing in a process of one's own: auth, telemetry" in caplog.text


async def test_calls_are_routed_and_counted(path: Path) -> None:
    async with Router.from_config(path) as router:
        reply = await router.chat("hi")
        assert (reply.text, reply.target) == ("one two three", "t")
        said = [{"role": "system", "content": "short"}, {"role": "user", "content": "hi"}]
        assert "".join([piece async for piece in router.stream_chat(said)]) == "one two three"
        short = await router.chat("hi", max_output_tokens=1)
        assert short.text == "one"
        assert len(await router.embed(["a", "b"], model="embed", dimensions=3)) == 2
        with pytest.raises(RouterError) as failed:
            await router.chat("hi", model="dead")
        assert failed.value.reason is Reason.ALL_TARGETS_FAILED
        with pytest.raises(ValueError, match="a message is"):
            await router.chat([{"role": "user", "content": "x", "name": "y"}])
        stats = router.stats()
        assert (stats.calls, stats.succeeded, stats.failed, stats.success_rate) == (5, 4, 1, 0.8)
        assert stats.cost_usd > 0
        assert (stats.targets["t"].attempts, stats.targets["t"].succeeded) == (4, 4)
        assert stats.targets["t"].mean_seconds is not None
        assert stats.targets["d"].succeeded == 0
        assert stats.targets["d"].attempts >= 2
        assert "t" in stats.healthy_targets
        assert all(target.inflight == 0 for target in stats.targets.values())
    with pytest.raises(RuntimeError, match="not running"):
        await router.chat("hi")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"conversation": []}, "the conversation is empty"),
        ({"conversation": [{"role": "bot", "content": "x"}]}, "the role 'bot' is none of system, developer"),
        ({"conversation": [{"role": "tool", "content": "x"}]}, "the role 'tool' is none of"),
        ({"max_output_tokens": 0}, "max_output_tokens is 0"),
        ({"temperature": 2.5}, "temperature is 2.5; it goes from 0 to 2"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
async def test_an_argument_that_makes_no_sense_is_named_and_asks_nobody(
    path: Path, arguments: dict[str, Any], words: str
) -> None:
    asked = {"conversation": "hi", **arguments}
    async with Router.from_config(path) as router:
        with pytest.raises(ValueError, match=words):
            await router.chat(**asked)
        with pytest.raises(ValueError, match=words):
            await anext(aiter(router.stream_chat(**asked)))
        assert router.stats().calls == 0


async def test_texts_that_make_no_sense_are_named_too(path: Path) -> None:
    async with Router.from_config(path) as router:
        with pytest.raises(ValueError, match="inputs is empty"):
            await router.embed([], model="embed")
        with pytest.raises(ValueError, match="dimensions is 0"):
            await router.embed("a", model="embed", dimensions=0)


def test_without_async_it_blocks_and_any_thread_may_call(path: Path) -> None:
    before = threading.active_count()
    with Router.from_config(path) as router:
        assert router.chat("hi").text == "one two three"
        assert "".join(router.stream_chat("hi")) == "one two three"
        for piece in router.stream_chat("hi"):
            assert piece
            break
        texts: list[str] = []
        threads = [threading.Thread(target=lambda: texts.append(router.chat("hi").text)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == ["one two three"] * 4
        assert len(router.embed("a", model="embed")[0]) == 8
        assert router.stats().succeeded >= 7, "a stream that is left early may have been whole"
    assert threading.active_count() <= before + 4, "the loop's own thread has ended"


async def test_the_environment_names_endpoints_keys_and_strategy() -> None:
    async with Upstream() as a, Upstream() as b:
        a.on(CHAT_PATH, json_reply({"error": {}}, status=503))
        b.on(CHAT_PATH, json_reply(answer("from b")))
        b.on(EMBED_PATH, json_reply({}))
        env = {
            "LLM_ENDPOINTS": f"model-a@{a.base_url}, model-b@{b.base_url}",
            "LLM_API_KEYS": "key-${a},key-b",
            "LLM_HEALTH_CHECK": "off",
            "LLM_TIMEOUT": "20s",
        }
        async with Router.from_env(env) as router:
            assert (await router.chat("hi")).text == "from b"
        assert a.requests[0].headers["authorization"] == "Bearer key-${a}"
        assert b.requests[0].headers["authorization"] == "Bearer key-b"
        assert (a.requests[0].json["model"], b.requests[0].json["model"]) == ("model-a", "model-b")
        config = Router.from_env({**env, "LLM_STRATEGY": "round_robin"})._config
        assert config.routes["default"].strategy == "round_robin"
        assert config.providers["endpoint-1"].health_check is None
        assert config.providers["endpoint-1"].timeouts.unary == 20


def test_the_environment_names_kinds_that_need_no_address() -> None:
    env = {"LLM_ENDPOINTS": "bedrock/m@20250101-v1:0@litellm, a@litellm", "LLM_API_KEYS": "very-secret,none"}
    config = Router.from_env(env)._config
    made = [(p.kind, p.settings.api_key.get_secret_value()) for p in config.providers.values()]
    assert made == [("litellm", "very-secret"), ("litellm", "")]
    assert [target.model for target in config.targets.values()] == ["bedrock/m@20250101-v1:0", "a"]
    config = Router.from_env({"LLM_ENDPOINTS": "./model@sentence-transformers"})._config
    assert config.providers["endpoint-1"].kind == "sentence-transformers"
    assert config.targets["endpoint-1"].model == "./model"


async def test_leaving_a_stream_closes_the_upstream() -> None:
    async with Upstream() as upstream:
        upstream.always((*SSE_HEAD, event(pieces("a", finish=None)[0]), End.STALL))
        env = {"LLM_ENDPOINTS": f"m@{upstream.base_url}", "LLM_HEALTH_CHECK": "off"}
        async with Router.from_env(env) as router:
            stream = router.stream_chat("hi")
            assert await anext(aiter(stream)) == "a"
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
            async with asyncio.timeout(20):
                await upstream.connections[0].closed.wait()
            assert router.stats().targets["endpoint-1"].inflight == 0


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "LLM_ENDPOINTS: is not set; write model@url"),
        ({"LLM_ENDPOINTS": "http://x/v1"}, "entry 1 is not model@url"),
        ({"LLM_ENDPOINTS": "m@http://x/v1", "LLM_API_KEYS": "a,b"}, "has 2 keys for 1 endpoints"),
        ({"LLM_ENDPOINTS": "m@http://x/v1, m@ftp://x"}, "LLM_ENDPOINTS: entry 2, base_url: "),
        ({"LLM_ENDPOINTS": "m@http://x/v1", "LLM_STRATEGY": "best"}, "LLM_STRATEGY: is none of ordered, "),
        ({"LLM_ENDPOINTS": "m@http://x/v1", "LLM_TIMEOUT": "soon"}, "LLM_TIMEOUT: is not a duration"),
        ({"LLM_ENDPOINTS": "m@http://x/v1", "LLM_HEALTH_CHECK": "x"}, "LLM_HEALTH_CHECK: is not a duration"),
    ],
)
def test_a_wrong_variable_is_named_without_its_secrets(env: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Router.from_env({**env, **({} if "LLM_API_KEYS" in env else {"LLM_API_KEYS": "very-secret"})})
    assert words in str(refused.value)
    assert "very-secret" not in str(refused.value)


def test_importing_the_package_is_light() -> None:
    code = "import router_server, sys; print(sorted({'grpc', 'aiohttp', 'pydantic'} & sys.modules.keys()))"
    assert run(code, ROOT).strip() == "[]"


def test_the_examples_of_the_page_run(path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    shown = [run(example, path.parent) for example in examples]
    assert "one two three from t" in shown[0]
    assert "100% of 3" in shown[0]
    assert shown[1] == "one two three\none two three"


def run(code: str, folder: Path) -> str:
    """Return what Python prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True).stdout  # noqa: S603 - ours
