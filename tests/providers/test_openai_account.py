"""Settings, credentials and the active check of the kind ``openai``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from router_server.core.errors import UpstreamError
from router_server.core.provider import Capability, Provider, Surroundings
from router_server.core.types import (
    Generation,
)
from router_server.providers._openai_check import OpenAICheck
from router_server.providers.openai import KIND, OpenAIProvider, Settings
from tests.providers.checks import verdict_of
from tests.providers.openai_provider import KEY, provider_at
from tests.providers.openai_talk import call, stream, text_chunks
from tests.upstream import (
    End,
    Reply,
    Upstream,
    head,
    json_reply,
    reply,
    sse_reply,
)

answers_to_a_check = pytest.mark.parametrize(
    ("what", "verdict"),
    [
        (json_reply({"object": "list", "data": [{"id": "m"}]}), True),
        (json_reply({}, 401), False),
        (json_reply({}, 403), False),
        (json_reply({}, 404), None),
        (json_reply({}, 405), None),
        (json_reply({}, 429), None),
        (json_reply({}, 500), False),
        (json_reply({}, 302, {"Location": "/elsewhere"}), False),
        ((End.RESET,), False),
        (reply(b"<html>", 200), False),
        (reply(b"<html>", 200, {"Content-Type": "text/html"}), False),
        (reply(b"", 204), False),
        (json_reply([]), False),
        (json_reply("m"), False),
        (json_reply(None), False),
        (json_reply({"object": "list"}), False),
        (json_reply({"data": "m"}), False),
        (reply(b"[" * 10_000, 200), False),
        ((head(headers={"Content-Length": "100"}) + b"{", End.CLOSE), False),
    ],
)


@answers_to_a_check
async def test_the_active_check_of_a_compatible_server(
    upstream: Upstream, provider: Provider, what: Reply, verdict: bool | None
) -> None:
    upstream.on("/v1/models", what)
    assert await verdict_of(provider) is verdict
    # Twice where the connection broke before an answer: aiohttp repeats a GET.
    assert {request.target for request in upstream.requests} == {"/v1/models"}
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


@answers_to_a_check
async def test_the_active_check_of_openai_itself(
    upstream: Upstream, what: Reply, verdict: bool | None
) -> None:
    check = OpenAICheck(upstream.base_url, KEY, {"OpenAI-Organization": "org"})
    upstream.on("/v1/models", what)
    try:
        assert await check.ask() is verdict
    except UpstreamError:
        assert verdict is False
    assert [request.target for request in upstream.requests] == ["/v1/models"]
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert upstream.requests[0].headers["openai-organization"] == "org"
    await check.close()


async def test_the_check_of_a_server_that_is_down(upstream: Upstream, provider: Provider) -> None:
    await upstream.stop()
    assert await verdict_of(provider) is False


async def test_the_account_is_named_in_calls_and_checks(upstream: Upstream) -> None:
    provider = provider_at(upstream.base_url, organization="org", project="proj")
    upstream.on("/v1/models", json_reply({"data": []})).then(sse_reply(text_chunks("a")))
    await provider.check()
    await stream(provider)
    for request in upstream.requests:
        assert request.headers["openai-organization"] == "org"
        assert request.headers["openai-project"] == "proj"
    await provider.close()


async def test_a_server_that_wants_no_key_gets_none(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = Settings(base_url=upstream.base_url, api_key=pydantic.SecretStr(""))
    provider = KIND.create(settings, Surroundings(name="x"))
    upstream.on("/v1/models", json_reply({"data": []})).then(sse_reply(text_chunks("a")))
    assert await provider.check() is True
    await stream(provider)
    assert not any("authorization" in request.headers for request in upstream.requests)
    await provider.close()


def clean_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_what_is_not_set_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch, OPENAI_API_KEY=f"{KEY}\n", OPENAI_BASE_URL="http://h:1/v1",
                      OPENAI_ORG_ID="o", OPENAI_PROJECT_ID="p")  # fmt: skip
    settings = Settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert (settings.base_url, settings.organization, settings.project) == ("http://h:1/v1", "o", "p")
    assert KEY not in repr(settings) + str(settings) + repr(settings.model_dump())
    assert Settings(base_url="http://other/v1", organization="q").organization == "q"


def test_openai_itself_insists_on_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
    with pytest.raises(pydantic.ValidationError, match="OPENAI_API_KEY"):
        Settings()
    assert Settings(base_url="http://127.0.0.1:1/v1").api_key is None


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
async def test_the_name_of_the_token_limit_follows_the_host(base_url: str, name: str) -> None:
    provider = provider_at(base_url)
    assert isinstance(provider, OpenAIProvider)
    assert provider._wire._dialect.max_tokens_field == name
    await provider.close()


async def test_the_name_of_the_token_limit_can_be_set(upstream: Upstream) -> None:
    provider = provider_at(upstream.base_url, max_tokens_field="max_completion_tokens", stream_usage=False)
    upstream.then(sse_reply(text_chunks("a")))
    await stream(provider, call(generation=Generation(max_output_tokens=3)))
    assert upstream.requests[0].json["max_completion_tokens"] == 3
    assert "stream_options" not in upstream.requests[0].json
    await provider.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "unix:///run/x.sock"},
        {"base_url": "api.openai.com"},
        {"base_url": f"https://user:{KEY}@h/v1"},
        {"base_url": f"https://h/v1?key={KEY}"},
        {"api_key": f"{KEY}\nsecond line"},
        {"max_tokens_field": "tokens"},
        {"unknown": 1},
    ],
)
def test_settings_that_are_refused_without_telling_a_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Settings(**{"api_key": "k", **wrong})
    assert KEY not in str(caught.value)


async def test_the_address_and_the_batch(provider: Provider, upstream: Upstream) -> None:
    host, port = provider.address
    assert f"http://{host}:{port}/v1" == upstream.base_url
    assert provider.max_embed_batch == 2048


def test_the_kind() -> None:
    assert (KIND.name, KIND.settings) == ("openai", Settings)
    assert Capability.CONTINUATION not in KIND.capabilities
    assert {Capability.TOOLS, Capability.AUDIO_INLINE, Capability.DOCUMENT_INLINE} <= KIND.capabilities


def test_a_start_without_openai_does_not_wait_for_its_package(tmp_path: Path) -> None:
    """Importing the kind, as finding all kinds does, must not import the package."""
    code = "import sys, router_server.providers.openai; sys.exit('openai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)  # noqa: S603 - our own
    assert run.returncode == 0
