"""A small vLLM that answers and says how it is, a router before several, and what that knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from router_server.core.load import Load
from tests.e2e.serving import CHAT_PATH, EMBED_PATH, Served, answer, pieces
from tests.upstream import Request, Steps, Upstream, json_reply, reply, sse_reply
from tests.vllm_exposition import exposition

PATIENCE = 10.0
"""Seconds for what a busy machine may delay; it normally takes a tenth of one."""


@dataclass
class Engine:
    """A small vLLM: answers, and says how it is and how busy it is."""

    upstream: Upstream
    load: tuple[float, float, float] = (0, 0, 0)
    healthy: bool = True

    def __post_init__(self) -> None:
        self.upstream.on("/metrics", lambda _request: reply(exposition(self.load)))
        self.upstream.on("/health", lambda _request: reply(b"", 200 if self.healthy else 503))
        self.upstream.always(self._answer)

    def _answer(self, request: Request) -> Steps:
        return sse_reply(pieces("Hel", "lo")) if request.json.get("stream") else json_reply(answer())

    @property
    def name(self) -> str:
        """What the router calls it."""
        return self.upstream.root_url.removeprefix("http://")

    @property
    def asked(self) -> list[Request]:
        """The calls that it was sent."""
        return [r for r in self.upstream.requests if r.path in (CHAT_PATH, EMBED_PATH)]


def config(*engines: Engine, more: str = "", target: str = "", recovery: str = "none", rest: str = "") -> str:
    urls = ", ".join(f'"{engine.upstream.base_url}"' for engine in engines)
    return f"""
providers:
  local:
    {{kind: vllm, base_urls: [{urls}], load_interval: 50ms, load_idle_interval: 50ms,
     health_check: {{interval: 600ms, timeout: 5s}}{more}}}
targets:
  small: {{provider: local, model: small{target}}}
routes:
  chat: {{targets: [small], stream_recovery: {recovery}}}
{rest}"""


@asynccontextmanager
async def engines(count: int = 2) -> AsyncIterator[list[Engine]]:
    async with AsyncExitStack() as stack:
        yield [Engine(await stack.enter_async_context(Upstream())) for _ in range(count)]


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - the router tells nobody of what it learns
            await asyncio.sleep(0.01)


async def until(served: Served, engine: Engine, **wanted: object) -> None:
    """Wait until the router knows of ``engine`` what it is to know."""
    upstream = served.server.assembly.upstreams[f"local@{engine.name}"]
    await eventually(lambda: all(getattr(upstream, name) == value for name, value in wanted.items()))


async def loads_known(served: Served, *known: Engine) -> None:
    """Wait until the router has heard the present load of each."""
    for engine in known:
        load = served.server.assembly.upstreams[f"local@{engine.name}"].load
        await eventually(partial(_is_told, load, engine))


def _is_told(load: Load, engine: Engine) -> bool:
    told = load.engine
    return told is not None and (told.running, told.waiting, told.cache_used) == engine.load
