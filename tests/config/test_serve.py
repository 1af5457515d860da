"""The keys of a vLLM server that the router starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from router_server.config import load
from router_server.engines.wanted import engine_of
from tests.config.reading import config_of, only_mistake

FILE = """\
providers:
  v:
    kind: vllm
    {more}
    serve:
      model: m
      {keys}
targets:
  t: {{provider: v, model: x}}
routes:
  r: {{targets: [t]}}
"""


def file(keys: str = "stop_grace: 1s", more: str = "retries: 1") -> str:
    return FILE.format(keys=keys, more=more)


@pytest.mark.parametrize(
    ("keys", "line", "key", "message"),
    [
        ("modell: x", 7, "modell", "unknown key; did you mean model?"),
        ("start_timeout: soon", 7, "start_timeout", "is not a duration; write 500ms, 5s, 2m or 1h30m"),
        ("idle_sleep: 0s", 7, "idle_sleep", "must be more than 0"),
        ("while_waking: wait", 7, "while_waking", "must be 'queue' or 'next'"),
        ("args: [--port, 8000]", 7, "args[0]", "is set by the router; remove it"),
        ("args: [--max-model-len, 9, --model=x]", 7, "args[2]", "is set by the router; write serve.model"),
        ("args: --port", 7, "args", "must be a list; write [a, b]"),
        ("env: {A: true}", 7, "env.A", "must be text; put it in quotes if it looks like something else"),
        ("backoff: {frist: 1s}", 7, "backoff.frist", "unknown key; did you mean first?"),
        ("log: {max_bytes: 0}", 7, "log.max_bytes", "must be at least 1"),
        ("health_check: {failures: no}", 7, "health_check.failures", "must be a whole number"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_line(keys: str, line: int, key: str, message: str) -> None:
    problem = only_mistake(file(keys))
    assert (problem.line, problem.key, problem.message) == (line, f"providers.v.serve.{key}", message)


def test_serve_beside_base_url_is_a_mistake() -> None:
    problem = only_mistake(file(more="base_url: 'http://127.0.0.1:1/v1'"))
    assert (problem.line, problem.key) == (5, "providers.v.serve")
    assert problem.message == "stands beside base_url; keep one of the two"


def test_a_server_that_is_nowhere_is_a_mistake() -> None:
    problem = only_mistake(file().replace("    serve:\n      model: m\n      stop_grace: 1s\n", ""))
    assert (problem.line, problem.key) == (2, "providers.v")
    assert "add base_url or serve" in problem.message


def test_a_command_line_comes_of_it() -> None:
    keys = "{python: py, args: [--max-model-len, 4096, --x, 0.5], env: {A: 1}, model: m}"
    text = file().replace("\n      model: m\n      stop_grace: 1s", f" {keys}")
    spec = engine_of(config_of(text), "v", Path("/f"))
    assert spec is not None
    module = "vllm.entrypoints.openai.api_server"
    assert spec.command == (
        *("py", "-m", module, "--model", "m", "--uds", spec.socket),
        *("--max-model-len", "4096", "--x", "0.5"),
    )
    assert spec.env == {"A": "1"}
    assert spec.without == {"VLLM_API_KEY"}


def test_an_engine_is_another_one_only_where_its_process_would_be() -> None:
    def key(keys: str = "", more: str = "", folder: str = "/f") -> str:
        spec = engine_of(config_of(file(keys, more)), "v", Path(folder))
        assert spec is not None
        return spec.key

    usual = key()
    assert key("idle_sleep: 1m") == key("while_starting: queue") == key(more="max_queue: 3") == usual
    others = [key("args: [--x]"), key("env: {A: 1}"), key("env: {A_TOKEN: s}"), key(more="api_key: k")]
    assert len({usual, *others, key("env: {A_TOKEN: t}"), key(folder="/g")}) == 7


def test_an_interpreter_with_a_slash_counts_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(file("python: venv/bin/python"))
    spec = engine_of(load(path, {}), "v", tmp_path)
    assert spec is not None
    assert spec.command[0] == f"{tmp_path}/venv/bin/python"


def test_a_key_is_given_by_the_environment_and_so_is_what_sleep_needs() -> None:
    text = file("args: [--enable-sleep-mode]", more="api_key: very-secret-key")
    spec = engine_of(config_of(text), "v", Path("/f"))
    assert spec is not None
    assert spec.sleeps
    assert spec.env == {"VLLM_API_KEY": "very-secret-key", "VLLM_SERVER_DEV_MODE": "1"}
    assert "very-secret" not in f"{spec!r} {spec.command}"


def test_variables_are_secret_where_their_name_says_so() -> None:
    settings = config_of(file("env: {HF_TOKEN: very-secret-token, LEVEL: info}")).providers["v"].settings
    assert isinstance(settings.serve.env["HF_TOKEN"], SecretStr)
    assert settings.serve.env["LEVEL"] == "info"
    assert "very-secret" not in repr(settings)
