"""What is said of a configuration that is taken while the server runs."""

from __future__ import annotations

import pytest

from router_server.auth.api_keys import hash_of
from router_server.config import Config, read
from router_server.reloading import Reloader, Source

_BASE = """
server: {listen: '0.0.0.0:50051'}
providers: {m: {kind: mock, reply: REPLY}}
targets: {t: {provider: m, model: x}}
routes: {chat: {targets: [t]}}
"""


def config(reply: str, *, guarded: bool) -> Config:
    keys = f"auth: {{api_keys: [{{name: a, sha256: {hash_of('very-secret-a')!r}}}]}}\n" if guarded else ""
    return read(_BASE.replace("REPLY", reply) + keys, {}, origin="test")


async def test_what_is_unwise_is_warned_of_once_while_the_server_runs_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cheapest = _BASE.replace("[t]", "[t], strategy: lowest_cost")
    coming = [config("one", guarded=False), config("two", guarded=False), read(cheapest, {}, origin="test")]
    taken: list[Config] = []

    async def apply(wanted: Config) -> None:
        taken.append(wanted)

    async def refused() -> None:
        raise AssertionError

    wanted = list(coming)
    reloader = Reloader(Source(lambda: wanted.pop(0)), config("one", guarded=True), apply, refused)
    for _ in coming:
        assert await reloader.reload()
    assert taken == coming
    assert caplog.text.count("whoever reaches it can call every model") == 1
    assert caplog.text.count("the price of t is not known") == 1
