from __future__ import annotations

from pathlib import Path

import pytest

from router_server.config import warnings_of
from router_server.config.callers import AuthConfig
from tests.config.reading import VALID, config_of, mistakes, only_mistake

HASH = "0" * 64
KEY = f"{{name: a, sha256: '{HASH}'}}"


def auth_of(text: str) -> AuthConfig:
    auth = config_of(f"{VALID}redis: redis://localhost\nauth: {text}").auth
    assert auth is not None
    return auth


def test_places_of_keys_are_written_as_people_think_of_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.touch()
    for text, file, redis, count in (
        (str(path), path, False, 0),
        ("redis", None, True, 0),
        (f"[{KEY}]", None, False, 1),
        (f"{{file: {path}, redis: true, keys: [{KEY}]}}", path, True, 1),
    ):
        keys = auth_of(f"{{api_keys: {text}}}").api_keys
        assert keys is not None
        assert (keys.file, keys.redis, len(keys.keys)) == (file, redis, count)


JWT = "jwks: 'https://a/keys', issuer: a, audience: b"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("{}", "auth", "accepts nobody"),
        ("{api_keys: none.yaml}", "auth.api_keys", "no such file; make it with"),
        ("{api_keys: redis}", "auth.api_keys", "redis is not set"),
        ("{api_keys: [{name: a, sha256: abc}]}", "auth.api_keys[0].sha256", "is not a SHA-256"),
        (f"{{api_keys: [{KEY}, {KEY}]}}", "auth.api_keys[1].sha256", "is that of another key"),
        (
            f"{{api_keys: [{{name: a, sha256: '{HASH}', expires: soon}}]}}",
            "auth.api_keys[0].expires",
            "is not a moment",
        ),
        (
            f"{{api_keys: [{{name: a, sha256: '{HASH}', expires: '2027-01-01T00:00:00'}}]}}",
            "auth.api_keys[0].expires",
            "with its time zone",
        ),
        (
            f"{{api_keys: [{{name: a, sha256: '{HASH}', routes: []}}]}}",
            "auth.api_keys[0].routes",
            "is empty",
        ),
        (
            f"{{api_keys: [{{name: a, sha256: '{HASH}', limits: {{max_concurrency: 0}}}}]}}",
            "auth.api_keys[0].limits.max_concurrency",
            "at least 1",
        ),
        ("{jwt: {jwks: 'http://a/keys', issuer: a, audience: b}}", "auth.jwt.jwks", "is not https"),
        ("{jwt: {jwks: none.json, issuer: a, audience: b}}", "auth.jwt.jwks", "no such file"),
        (f"{{jwt: {{{JWT}, algorithms: [HS256]}}}}", "auth.jwt.algorithms[0]", "must be 'RS256'"),
        (f"{{jwt: {{{JWT}, algorithms: [none]}}}}", "auth.jwt.algorithms[0]", "must be 'RS256'"),
        (f"{{jwt: {{{JWT}, algorithms: []}}}}", "auth.jwt.algorithms", "is empty"),
        ("{mtls: {}}", "auth.mtls", "needs server.tls.client_ca"),
    ],
)
def test_each_mistake_says_what_to_do(text: str, key: str, words: str) -> None:
    problem = only_mistake(f"{VALID}auth: {text}")
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("limits: {caller: {requests_per_minute: 5}}", "limits.caller", "needs auth"),
        ("limits: {user: {requests_per_minute: 0}}", "limits.user.requests_per_minute", "at least 1"),
        ("limits: {key: {requests_per_minute: 5}}", "limits.key", "unknown key"),
    ],
)
def test_limits_that_limit_nobody(text: str, key: str, words: str) -> None:
    problem = only_mistake(f"{VALID}{text}")
    assert problem.key == key
    assert words in problem.message


def test_an_identity_provider_on_this_machine_needs_no_tls() -> None:
    for host in ("localhost:8080", "127.0.0.1", "[::1]:80"):
        assert auth_of(f"{{jwt: {{jwks: 'http://{host}/keys', issuer: a, audience: b}}}}").jwt
    assert mistakes(f"{VALID}auth: {{jwt: {{jwks: 'http://localhost.evil/', issuer: a, audience: b}}}}")


def test_who_asks_who_calls_is_no_open_relay_but_shows_keys_in_plaintext(tmp_path: Path) -> None:
    text = VALID.replace("kind: mock", "kind: openai, api_key: sk-secret") + f"auth: {{api_keys: [{KEY}]}}\n"
    (warning,) = warnings_of(config_of(f"{text}server: {{listen: '0.0.0.0:1'}}"))
    assert "can read the keys and tokens" in warning
    for name in ("c", "k"):
        (tmp_path / name).touch()
    tls = f"tls: {{cert: {tmp_path}/c, key: {tmp_path}/k}}"
    assert warnings_of(config_of(f"{text}server: {{listen: '0.0.0.0:1', {tls}}}")) == ()
    assert warnings_of(config_of(text)) == ()


def test_a_route_that_nobody_can_name_by_its_pattern_is_a_warning(tmp_path: Path) -> None:
    pem = tmp_path / "c.pem"
    pem.touch()
    text = f"""
        server: {{allow_direct: true, tls: {{cert: {pem}, key: {pem}, client_ca: {pem}}}}}
        providers: {{m: {{kind: mock}}}}
        targets: {{t: {{provider: m, model: x}}}}
        routes: {{chat: {{targets: [t], aliases: [gpt]}}}}
        auth: {{mtls: {{routes: ["ch*", m/x, gpt, embed]}}}}
    """
    alias, missing = warnings_of(config_of(text))
    assert "auth.mtls.routes names gpt, a route that is an alias; name its route chat" in alias
    assert "auth.mtls.routes names embed, a route that is not there" in missing
