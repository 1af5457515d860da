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


def test_the_password_of_the_shared_state_is_a_secret_as_written_and_as_meant() -> None:
    url = "rediss://router:very%2Fsecret@redis.internal:6379/1?ssl_ca_certs=/etc/ca.pem"
    config = read(f"redis: {url}\n{TEXT}", {"KEY_A": "key-of-a"}, origin="test")
    assert {url, "very%2Fsecret", "very/secret"} < set(secrets_of(config))
    assert str(config.redis) == "rediss://router@redis.internal:6379/1"
    for shown in (repr(config), str(config), config.model_dump_json()):
        assert "secret@" not in shown


def test_a_shared_state_without_a_password_has_no_secret() -> None:
    config = read(f"redis: redis://localhost:6379\n{TEXT}", {"KEY_A": "key-of-a"}, origin="test")
    assert sorted(secrets_of(config)) == ["key-of-a", "key-of-gemini"]
    assert str(config.redis) == "redis://localhost:6379"
