"""Environment variables in values, and that what they hold is never shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from router_server.config import ConfigError, read
from router_server.config.source import parse
from tests.config.reading import VALID, config_of, mistakes, only_mistake

OPENAI = """\
providers:
  o: {kind: openai, api_key: "${KEY}", base_url: "http://localhost:1/v1"}
targets:
  t: {provider: o, model: x}
routes:
  r: {targets: [t]}
"""


@pytest.mark.parametrize(
    ("text", "env", "value"),
    [
        ("${A}", {"A": "x: [y"}, "x: [y"),
        ("${A}", {"A": "5"}, 5),
        ("${A}", {"A": "0.5"}, 0.5),
        ("${A}", {"A": "true"}, True),
        ("${A}", {"A": ""}, None),
        ("'${A}'", {"A": "5"}, "5"),
        ("${A:-7}", {}, 7),
        ("${A:-7}", {"A": ""}, 7),
        ("${A:-7}", {"A": "8"}, 8),
        ("${A:-}", {}, None),
        ("http://${A}:${B:-80}/", {"A": "h"}, "http://h:80/"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $ 5$", {"A": "x"}, "$A $ 5$"),
        ("${A}", {"A": "${B}", "B": "x"}, "${B}"),
        ("|\n  ${A}", {"A": "# x"}, "# x"),
    ],
)
def test_a_variable_takes_its_place(text: str, env: dict[str, str], value: object) -> None:
    document = parse(f"key: {text}", env)
    assert document.findings == []
    assert document.data == {"key": value}


@pytest.mark.parametrize("text", ["${}", "${1}", "${A-b}", "${A", "${a b}", "x ${"])
def test_what_only_looks_like_a_variable_is_a_mistake(text: str) -> None:
    (finding,) = parse(f"key: '{text}'", {"A": "x"}).findings
    assert finding.path == ("key",)
    assert "write ${NAME}" in finding.message


def test_a_variable_in_a_key_or_a_comment_means_nothing() -> None:
    document = parse("'${A}': 1 # ${B}", {})
    assert document.data == {"${A}": 1}
    assert document.findings == []


def test_an_unset_variable_is_a_mistake_of_its_key_and_nothing_else() -> None:
    problem = only_mistake(OPENAI)
    assert (problem.line, problem.key) == (2, "providers.o.api_key")
    assert problem.message == "environment variable KEY is not set; set it, or write ${KEY:-default}"


@pytest.mark.parametrize("key", ["12345678", "true", "0123", "1e5", "a: {b", "# no comment"])
def test_a_key_is_text_whatever_it_looks_like(key: str) -> None:
    block = "providers:\n  o:\n    kind: openai\n    base_url: http://localhost:1/v1\n    api_key: ${KEY}\n"
    settings = config_of(block + OPENAI[OPENAI.index("targets") :], {"KEY": key}).providers["o"].settings
    assert settings.api_key == SecretStr(key)


def test_a_variable_takes_the_type_that_its_key_wants() -> None:
    text = f"{VALID}server:\n  workers: ${{W}}\n  reflection: ${{R}}\n  drain_delay: ${{D}}\n"
    server = config_of(text, {"W": "3", "R": "false", "D": "1m"}).server
    assert (server.workers, server.reflection, server.drain_delay) == (3, False, 60.0)


def test_no_printed_configuration_shows_a_key() -> None:
    config = config_of(OPENAI, {"KEY": "sk-very-secret"})
    shown = [
        repr(config),
        str(config),
        repr(config.model_dump()),
        config.model_dump_json(),
        json.dumps(repr(vars(config))),
    ]
    assert not any("sk-very" in text for text in shown)
    assert config.providers["o"].settings.api_key.get_secret_value() == "sk-very-secret"


EVERYWHERE = """\
server:
  listen: ^
  workers: ^
  drain_delay: ^
  reflection: ^
  deadline: ^
  tls: {cert: ^, key: ^}
  typo: ^
providers:
  o: {kind: openai, api_key: [^], base_url: ^, organization: {a: ^}, timeouts: {idle: ^}, breaker: ^}
  v: {kind: vllm, base_url: ^, api_key: ^}
  g: {kind: gemini, base_url: ^, api_key: [^]}
  m: {kind: mock, fail: ^, latency: ^, seed: ^, typo: ^}
  s: {kind: static, content: {a: ^}, answers: ^}
  k: {kind: ^}
targets:
  a: {provider: ^, model: ^, temperature: ^, capabilities: {tools: ^}, price: ^}
  b: {provider: m, model: ^, embedding_space: ^, context_window: ^}
  c: {provider: m, model: ^, embedding_space: x}
routes:
  r: {targets: [^, a, ^], strategy: ^, stream_recovery: ^}
  q: {targets: ^}
  e: {targets: [b, c]}
telemetry: {otlp_endpoint: ^, sample_ratio: ^, log: {level: ^, format: ^}}
"""


@settings(max_examples=40, deadline=None)
@given(st.text("QZ0189:/@{}'\\ \n", min_size=9, max_size=30).map(str.strip).filter(lambda s: len(s) > 8))
def test_no_mistake_shows_what_a_variable_holds(secret: str) -> None:
    error = error_of(EVERYWHERE.replace("^", "'${SECRET}'"), {"SECRET": secret})
    assert len(error.problems) > 25
    assert secret not in str(error)
    assert repr(secret)[1:-1] not in str(error)


@settings(max_examples=40, deadline=None)
@given(st.text("QZ018", min_size=9, max_size=30))
def test_no_mistake_shows_a_key_that_is_written_in_the_file(secret: str) -> None:
    text = "\n".join(
        line for line in EVERYWHERE.splitlines() if not line.lstrip().startswith(("a:", "r:", "k:", "c:"))
    )
    error = error_of(text.replace("^", f"'{secret}'"), {})
    assert len(error.problems) > 15
    assert secret not in str(error)


def error_of(text: str, env: dict[str, str]) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        read(text, env, origin="router.yaml")
    return raised.value


def test_a_short_secret_is_hidden_where_it_stands() -> None:
    (problem,) = mistakes(VALID.replace("[t]", "['${T}']"), {"T": "xyz"})
    assert problem.message == "no target is called '***'; known here: t"
