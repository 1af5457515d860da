"""What the tests of the HTTP client share: a client with a secret, and failures that must not tell it."""

from __future__ import annotations

import traceback

import pytest

from router_server.core.errors import UpstreamError
from router_server.core.provider import Surroundings
from router_server.providers._endpoint import parse_endpoint
from router_server.providers._failure import NO_VERDICT
from router_server.providers._http import HttpClient

SECRET = "sk-very-secret"

PLAIN = Surroundings("x")


def client_for(base_url: str, surroundings: Surroundings = PLAIN) -> HttpClient:
    return HttpClient(
        parse_endpoint(base_url, default_path="/v1"),
        {"Authorization": f"Bearer {SECRET}"},
        surroundings,
        lambda _status, _body: NO_VERDICT,
        clock=lambda: 1_000_000_000.0,
    )


async def post(client: HttpClient, body: bytes = b"{}") -> bytes:
    return await client.post("/chat", body, {}, 5.0)


async def failure(client: HttpClient, body: bytes = b"{}") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await post(client, body)
    assert_tells_nothing(caught.value)
    return caught.value


def assert_tells_nothing(error: UpstreamError) -> None:
    text = "".join(traceback.format_exception(error))
    assert SECRET not in text
    assert "127.0.0.1" not in text
    assert "upstream wrote this" not in text
