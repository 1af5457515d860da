"""Providers whose libraries are extras: real ones, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router_server.core.provider import Provider
from tests.kinds.litellm_talk import provider_at
from tests.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[Provider]:
    made = provider_at(upstream.base_url)
    yield made
    await made.close()
