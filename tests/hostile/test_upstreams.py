"""Whatever an upstream says: memory stays bounded, the attempt is classed, and the fallback answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from modelrouter.v1 import common_pb2
from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import chat, events_of, text_of
from tests.hostile.upstreams import GEMINI, MIB, OPENAI, Hostility, answers, bodies, heads, nested, streams
from tests.upstream import End, Upstream, head

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = 20.0
"""Seconds that nothing here may take, however busy the machine is."""


SHORT = "timeouts: {first_token: 500ms, idle: 500ms, unary: 500ms}"


def parts(upstream: Upstream) -> str:
    # No breaker opens, so that each case is heard.
    common = "breaker: {failure_threshold: 100000, min_calls: 100000}, retries: 0, health_check: null"
    return f"""
        providers:
          o: {{kind: openai, api_key: very-secret-o, base_url: "{upstream.base_url}", {common}}}
          g: {{kind: gemini, api_key: very-secret-g, base_url: "{upstream.root_url}/v1beta", {common}}}
          s: {{kind: static, content: rescued}}
        targets:
          o1: {{provider: o, model: model-o}}
          o2: {{provider: o, model: model-o, {SHORT}}}
          g1: {{provider: g, model: gemini-2.5-flash}}
          g2: {{provider: g, model: gemini-2.5-flash, {SHORT}}}
          s1: {{provider: s, model: model-s}}
        routes:
          openai: {{targets: [o1, s1], stream_recovery: restart}}
          gemini: {{targets: [g1, s1], stream_recovery: restart}}
          openai-in-a-hurry: {{targets: [o2, s1], stream_recovery: restart}}
          gemini-in-a-hurry: {{targets: [g2, s1], stream_recovery: restart}}
        telemetry: {{log: {{format: json, level: info}}}}
    """


@dataclass
class Scene:
    upstream: Upstream
    server: ServerProcess


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with Upstream() as upstream, served(tmp_path_factory.mktemp("s"), parts(upstream)) as server:
        for route in ("openai", "gemini"):  # imports what the first call imports
            upstream.always((End.CLOSE,))
            await server.stub.Chat(chat(route))
        yield Scene(upstream, server)
        assert "failed, request id" not in server.stderr, "a call met a bug of the router"


@asynccontextmanager
async def bounded(server: ServerProcess, mebibytes: int) -> AsyncIterator[None]:
    """Fail where the server's memory grows by more than ``mebibytes`` within the context."""
    before = highest = server.stats.memory_info().rss

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, server.stats.memory_info().rss)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    assert highest - before < mebibytes * MIB, f"grew by {(highest - before) / MIB:.0f} MiB"


def every() -> Iterator[tuple[str, Hostility]]:
    """Yield each case with the route to hear it on; heads and bodies are read by one client for all kinds."""
    yield from (("openai", hostility) for hostility in (*heads(), *bodies()))
    for route, shape in (("openai", OPENAI), ("gemini", GEMINI)):
        yield from ((route, hostility) for hostility in (*streams(), *nested(), *answers(shape)))


async def rescued(scene: Scene, route: str, *, stream: bool) -> common_pb2.RouteInfo:
    """Call and return the trail of the answer, which is the fallback's."""
    if stream:
        events = await events_of(scene.server.stub.StreamChat(chat(route), timeout=LONG))
        assert text_of(events) == "rescued"
        trail: common_pb2.RouteInfo = events[-1][1].route
    else:
        answer = await scene.server.stub.Chat(chat(route), timeout=LONG)
        assert answer.message.content[0].text == "rescued"
        trail = answer.route
    assert trail.target == "s1"
    return trail


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(("route", "hostility"), [pytest.param(r, h, id=f"{r}-{h.name}") for r, h in every()])
async def test_a_hostile_upstream_is_rescued_in_bounded_memory(
    scene: Scene, route: str, hostility: Hostility, *, stream: bool
) -> None:
    scene.upstream.always(hostility.reply)
    if hostility.needs_a_timer:
        route += "-in-a-hurry"
    async with bounded(scene.server, hostility.memory):
        trail = await rescued(scene, route, stream=stream)
    outcome = common_pb2.Attempt.Outcome.Name(trail.attempts[0].outcome).removeprefix("OUTCOME_")
    assert outcome in hostility.outcomes, trail.attempts[0].error_reason


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("route", ["openai", "gemini"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(scene: Scene, route: str, status: int, *, stream: bool) -> None:
    async with Upstream() as elsewhere:
        scene.upstream.always((head(status, {"Location": elsewhere.base_url, "Content-Length": "0"}),))
        trail = await rescued(scene, route, stream=stream)
        assert not elsewhere.connections
    assert trail.attempts[0].outcome == common_pb2.Attempt.OUTCOME_MALFORMED
    assert trail.attempts[0].error_reason == f"http_{status}"


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("route", ["openai", "gemini"])
@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "file:///etc/passwd",
        "//x",
        "\x01",
        "",
    ],
)
async def test_a_redirect_to_the_machine_s_own_network_is_not_followed(
    scene: Scene, route: str, location: str, *, stream: bool
) -> None:
    scene.upstream.always((head(302, {"Location": location, "Content-Length": "0"}),))
    trail = await rescued(scene, route, stream=stream)
    assert trail.attempts[0].outcome == common_pb2.Attempt.OUTCOME_MALFORMED
    assert trail.attempts[0].error_reason == "http_302"
