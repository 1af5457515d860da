"""Three router processes, one Redis: users keep their target, whichever answers, and when one is killed."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import answer, chat
from tests.state.servers import shared_server
from tests.upstream import Upstream, json_reply

USERS = [f"user-{number}" for number in range(20)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mr") as path:
        yield Path(path)


def configuration(a: Upstream, b: Upstream, redis: str) -> str:
    return f"""
        redis: {redis}
        providers:
          a: {{kind: openai, api_key: k, base_url: "{a.base_url}", health_check: null}}
          b: {{kind: openai, api_key: k, base_url: "{b.base_url}", health_check: null}}
        targets:
          a: {{provider: a, model: m}}
          b: {{provider: b, model: m}}
        routes:
          chat: {{targets: [a, b], sticky: {{by: user_id, shares: {{a: 0.8, b: 0.2}}}}}}
    """


async def home(server: ServerProcess, user: str) -> str:
    response = await server.stub.Chat(chat(user_id=user), timeout=20)
    return str(response.route.target)


async def agreed(replicas: Sequence[ServerProcess], user: str) -> str:
    """Return the target of ``user`` once all ``replicas`` say the same.

    A replica that the machine kept from hearing Redis within 50 ms answers by itself, for that one call.
    """
    async with asyncio.timeout(30):
        while True:
            answers = {await home(replica, user) for replica in replicas}
            if len(answers) == 1:
                return answers.pop()


async def test_replicas_agree_on_every_user_and_lose_nobody_with_one_of_them(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(shared_server(folder))
        a, b = [await stack.enter_async_context(Upstream()) for _ in range(2)]
        a.always(json_reply(answer()))
        b.always(json_reply(answer()))
        places = [folder / name for name in "xyz"]
        for place in places:
            place.mkdir()
        text = configuration(a, b, redis.url)
        # One after the other: all at once, their starts take longer than one of them may.
        replicas = [await stack.enter_async_context(served(place, text)) for place in places]
        # All of them at once, for the same users: whoever was quicker decides.
        asked = [(replica, user) for user in USERS for replica in replicas]
        await asyncio.gather(*(home(replica, user) for replica, user in asked))
        homes = {user: await agreed(replicas, user) for user in USERS}
        assert Counter(homes.values())["a"] > len(USERS) / 2

        replicas[0].signal(signal.SIGKILL)
        await replicas[0].exit_code(within=20)
        assert {user: await agreed(replicas[1:], user) for user in USERS} == homes
