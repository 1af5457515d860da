"""Reading a configuration from text, and every mistake of it as (line, key, message)."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

import pytest

from router_server.config import Config, ConfigError, Problem, read

VALID = """\
providers:
  m: {kind: mock}
targets:
  t: {provider: m, model: x}
routes:
  r: {targets: [t]}
"""


def config_of(text: str, env: Mapping[str, str] | None = None) -> Config:
    return read(dedent(text), env or {}, origin="router.yaml")


def mistakes(text: str, env: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        config_of(text, env)
    return raised.value.problems


def only_mistake(text: str, env: Mapping[str, str] | None = None) -> Problem:
    (problem,) = mistakes(text, env)
    return problem
