from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.telemetry.lines import Line, json_line
from router_server.telemetry.redaction import MASK, Secrets


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("authorization: abc", "authorization: ***"),
        (
            "{'Authorization': 'Basic dXNlcjpwYXNz', 'Accept': '*/*'}",
            "{'Authorization': 'Basic ***', 'Accept': '*/*'}",
        ),
        ("(('x-api-key', 'k-123'), ('te', 'trailers'))", "(('x-api-key', '***'), ('te', 'trailers'))"),
        ("(b'x-goog-api-key', b'k-123')", "(b'x-goog-api-key', b'***')"),
        ('"api-key": "k-123"', '"api-key": "***"'),
        ("Set-Cookie: session=1234; Path=/", "Set-Cookie: ***"),
        ("{'cookie': 'a=1; b=2', 'te': '*'}", "{'cookie': '***', 'te': '*'}"),
        ("Proxy-Authorization: Basic abc\nHost: x", "Proxy-Authorization: Basic ***\nHost: x"),
        ("no authorization, no cookie, no api-key", "no authorization, no cookie, no api-key"),
        ("sent with bearer abcdefgh12345678 to it", "sent with bearer *** to it"),
        ("GET /v1beta/models?key=AIzaSomething&alt=sse", "GET /v1beta/models?key=***&alt=sse"),
        ("redis://user:hunter2@localhost:6379/0", "redis://user:***@localhost:6379/0"),
        ("Incorrect API key provided: sk-proj-abcdefghijklmnop", "Incorrect API key provided: sk-***"),
        ("AIzaSyA1234567890abcdefghij", "AIza***"),
        ("the bearer of news wrote to the author", "the bearer of news wrote to the author"),
        ("http://127.0.0.1:8000/v1/models answered 200", "http://127.0.0.1:8000/v1/models answered 200"),
        ("12 tokens, key=value, input_tokens=3", "12 tokens, key=value, input_tokens=3"),
    ],
)
def test_what_looks_like_a_credential(text: str, clean: str) -> None:
    assert Secrets().redact(text) == clean


def test_of_two_secrets_the_longer_is_masked_whole() -> None:
    secrets = Secrets()
    for secret in ("hunter2", "hunter2-and-more"):
        secrets.register(secret)

    assert secrets.redact("hunter2-and-more, hunter2") == f"{MASK}, {MASK}"


def test_words_too_short_to_be_secrets_are_left_alone() -> None:
    secrets = Secrets()
    for word in ("", "no"):
        secrets.register(word)

    assert secrets.redact("nothing, no") == "nothing, no"


@given(st.lists(st.text(min_size=4), min_size=1, max_size=5), st.text(), st.text())
def test_no_registered_secret_survives(registered: list[str], before: str, after: str) -> None:
    secrets = Secrets()
    for secret in registered:
        secrets.register(secret)
    unlike_the_mask = [secret for secret in registered if not set(secret) <= set(MASK)]

    clean = secrets.redact(before + registered[0] + after)
    assert not [secret for secret in unlike_the_mask if secret in clean.replace(MASK, "\0")]


_PIECES = (
    "api-key",
    "=",
    ": ",
    "?key=",
    "abc12345",
    "sk-",
    "Bearer ",
    "cookie",
    "://",
    "user:",
    "@",
    "hunter",
    "\n",
)


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_what_is_not_suspect_would_not_be_changed(text: str) -> None:
    secrets = Secrets()
    secrets.register("hunter=")

    assert secrets.suspects(text) or secrets.redact(text) == text


@given(
    st.text(min_size=4, max_size=12, alphabet=st.characters(codec="utf-8", exclude_characters=MASK)),
    st.text(max_size=5),
)
def test_no_line_shows_what_was_registered_however_json_writes_it(secret: str, around: str) -> None:
    secrets = Secrets()
    secrets.register(secret)

    line = json_line(Line(0.0, logging.INFO, "n", "m", {"field": f"{around}{secret}{around}"}), secrets)

    assert secret not in json.loads(line)["field"]
