"""How vLLM is asked by a benchmark: straight over HTTP, and through the router; and what is timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from modelrouter import AsyncClient

TOKENS: Final = 24
"""Of every answer, unless something else is said."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: seconds to the first token, seconds per further token, how many tokens."""

    first: float
    each: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of calls: its answers, in the order of the prompts, and how long it took."""

    seen: Sequence[Seen]
    seconds: float

    @property
    def throughput(self) -> float:
        """Tokens per second over all answers."""
        return sum(one.tokens for one in self.seen) / self.seconds


Ask = Callable[[str], Awaitable[Seen]]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


def direct(session: aiohttp.ClientSession, tokens: int = TOKENS) -> Ask:
    """Return how vLLM itself is asked."""

    async def ask(prompt: str) -> Seen:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        began = time.perf_counter()
        async with session.post("http://vllm/v1/chat/completions", json=body) as answer:
            return await _timed(began, tokens, _contents(answer))

    return ask


async def _contents(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in answer.content:
        if line.startswith(b"data: {"):
            for choice in _CHUNK.decode(line[6:]).choices:
                yield choice.delta.content or ""


def routed(client: AsyncClient, route: str, tokens: int = TOKENS, priority: int = 0) -> Ask:
    """Return how vLLM is asked through the router."""

    async def ask(prompt: str) -> Seen:
        began = time.perf_counter()
        stream = client.stream_chat(
            prompt,
            model=route,
            max_output_tokens=tokens,
            temperature=0,
            priority=priority,
            provider_options={"vllm": {"ignore_eos": True}},
        )
        return await _timed(began, tokens, aiter(stream))

    return ask


async def _timed(began: float, tokens: int, pieces: AsyncIterator[str]) -> Seen:
    times = [time.perf_counter() async for piece in pieces if piece]
    return Seen(times[0] - began, (times[-1] - times[0]) / (tokens - 1), tokens)


async def turn(ask: Ask, prompts: Sequence[str], at_once: int) -> Turn:
    """Make one turn of calls, ``at_once`` of them under way."""
    room = asyncio.Semaphore(at_once)

    async def one(prompt: str) -> Seen:
        async with room:
            return await ask(prompt)

    began = time.perf_counter()
    seen = await asyncio.gather(*map(one, prompts))
    return Turn(seen, time.perf_counter() - began)
