"""A scripted router per test, and each of the two clients talking to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.client.scripted import ScriptedRouter, running
from tests.client.shells import Shell, opened


@pytest.fixture
def router() -> Iterator[ScriptedRouter]:
    with running(ScriptedRouter()) as router:
        yield router


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def shell(router: ScriptedRouter, kind: str) -> AsyncIterator[Shell]:
    async with opened(kind, router.target) as shell:
        yield shell
