"""An upstream, and what calls it, for every test of providers that asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router_server.core.provider import Provider
from router_server.providers._http import HttpClient
from tests.providers.gemini_upstream import make
from tests.providers.http_exchange import client_for
from tests.providers.openai_provider import provider_at
from tests.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[HttpClient]:
    made = client_for(upstream.base_url)
    yield made
    await made.close()


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Provider]:
    made = provider_at(upstream.base_url)
    yield made
    await made.close()


@pytest.fixture
async def gemini(upstream: Upstream) -> AsyncIterator[Provider]:
    provider = make(upstream.base_url)
    yield provider
    await provider.close()
