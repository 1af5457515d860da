from __future__ import annotations

from router_server.config import read
from router_server.config.secrets import secrets_of

TEXT = """
providers:
  a: {kind: openai, api_key: "${KEY_A}"}
  g: {kind: gemini, api_key: key-of-gemini}
  v: {kind: vllm, base_url: "http://127.0.0.1:1/v1"}
  e: {kind: openai, api_key: "", base_url: "http://127.0.0.1:1/v1"}
targets:
  t: {provider: a, model: gpt-4o-mini}
routes:
  chat: {targets: [t]}
"""


def test_every_secret_is_found_and_nothing_else() -> None:
    config = read(TEXT, {"KEY_A": "key-of-a"}, origin="test")
    assert sorted(secrets_of(config)) == ["key-of-a", "key-of-gemini"]
