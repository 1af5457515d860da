"""What the router adds before real vLLM: the same prompts straight to it and through the router, by turns.

    make bench-vllm

Prints times to the first token, times per token and tokens per second as ratios of pairs, what the router's
processor time was beside vLLM's, and what the router's queue does for small prompts. See docs/vllm.md.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp

from bench.engines import Engine, prepared_models, serve
from bench.vllm_asking import Ask, Seen, Turn, direct, routed, turn
from modelrouter import AsyncClient
from tests.e2e.process import ServerProcess, served

_CONCURRENCY: Final = (1, 8, 32)
_TURNS: Final = {1: 8, 8: 2, 32: 1}
"""Turns of each way in one round, by how many calls are under way at once.

Short, so that the rest of the machine changes little within a pair."""

_SLOTS: Final = 8
"""What vLLM serves at once. As many calls the router's queue lets in, where it is on.

With fewer, vLLM would have room that the queue knows nothing of, and small prompts would wait for nothing."""

_BACKLOG: Final = 24
_SMALL: Final = 8
_LARGE_WORDS: Final = 60
_SUBJECTS: Final = ("the sea", "a clock", "iron", "bread", "a river", "glass", "the moon", "a bridge")
_START: Final = 400.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Both ways by turns: pairs of turns over the same prompts; and the processor time of the routed ones."""

    straight: Sequence[Turn]
    through: Sequence[Turn]
    router_cpu: float
    vllm_cpu: float

    def row(self, at_once: int) -> str:
        """Return the row of the table."""
        ways = (self.straight, self.through)
        straight, through = ([one for turn in way for one in turn.seen] for way in ways)
        pairs = list(zip(straight, through, strict=True))
        first = spread([b.first / a.first for a, b in pairs])
        each = spread([b.each / a.each for a, b in pairs])
        turns = zip(self.straight, self.through, strict=True)
        speed = spread([b.throughput / a.throughput for a, b in turns])
        share = self.router_cpu / self.vllm_cpu
        return f"| {at_once} | {len(pairs)} | {first} | {each} | {speed} | {share:.4f} |"


def spread(ratios: Sequence[float]) -> str:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: both ways of asking, and the processes."""

    straight: Ask
    through: Ask
    router: ServerProcess
    engine: Engine

    @property
    def cpu(self) -> tuple[float, float]:
        """The processor time that the router has taken, and vLLM."""
        return sum(self.router.stats.cpu_times()[:2]), self.engine.cpu_seconds


async def compare(bench: Bench, rounds: int, at_once: int) -> Pairs:
    """Let both ways take turns; who begins changes with every round."""
    turns: tuple[list[Turn], list[Turn]] = ([], [])
    router_cpu = vllm_cpu = 0.0
    for number in range(rounds * _TURNS[at_once]):
        prompts = prompts_of(number, at_once)
        for way in ((0, 1), (1, 0))[number % 2]:
            before = bench.cpu
            turns[way].append(await turn((bench.straight, bench.through)[way], prompts, at_once))
            if way:
                after = bench.cpu
                router_cpu += after[0] - before[0]
                vllm_cpu += after[1] - before[1]
    return Pairs(*turns, router_cpu, vllm_cpu)


def prompts_of(number: int, count: int) -> list[str]:
    """Return the prompts of a round."""
    chance = random.Random(number)
    return [f"Tell me {chance.randint(3, 99)} things about {chance.choice(_SUBJECTS)}." for _ in range(count)]


async def small_first(client: AsyncClient, route: str, priority: int, number: int) -> list[float]:
    """Ask for small things while many large prompts wait; return the seconds to each one's first token."""
    chance = random.Random(number)
    words = [" ".join(chance.choices(_SUBJECTS, k=_LARGE_WORDS)) for _ in range(_BACKLOG)]
    large, small = routed(client, route), routed(client, route, 4, priority)
    async with asyncio.TaskGroup() as group:
        for text in words:
            group.create_task(_done(large(text)))
        await asyncio.sleep(0.2)
        asked = [group.create_task(_done(small(prompt))) for prompt in prompts_of(number, _SMALL)]
    return [task.result().first for task in asked]


async def _done(asked: Awaitable[Seen]) -> Seen:
    return await asked


async def queue_pairs(client: AsyncClient, rounds: int) -> list[float]:
    """Return the ratios of the times to first token of small prompts: with the queue, over without."""
    ratios = []
    for number in range(rounds):
        times: dict[str, list[float]] = {}
        for route in (("plain", "queued"), ("queued", "plain"))[number % 2]:
            times[route] = await small_first(client, route, 5 if route == "queued" else 0, number)
        ratios += [b / a for a, b in zip(times["plain"], times["queued"], strict=True)]
    return ratios


async def main(rounds: int) -> None:
    """Measure and print the tables."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        engine = await stack.enter_async_context(_engine(folder))
        router = await stack.enter_async_context(_router(folder, engine))
        client = await stack.enter_async_context(AsyncClient(router.target))
        connector = aiohttp.UnixConnector(str(engine.socket), limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        bench = Bench(direct(session), routed(client, "plain"), router, engine)
        for ask in (bench.straight, bench.through):
            await turn(ask, prompts_of(0, 8), 4)
        print(
            "| at once | pairs | TTFT | TPOT | tokens/s | router CPU ÷ vLLM CPU |\n|---|---|---|---|---|---|"
        )
        for at_once in _CONCURRENCY:
            pairs = await compare(bench, rounds, at_once)
            print(pairs.row(at_once), flush=True)
        print(f"\nTTFT of small prompts, queue on ÷ off: {spread(await queue_pairs(client, rounds))}")


@asynccontextmanager
async def _engine(folder: Path) -> AsyncIterator[Engine]:
    """Run vLLM under a router that does nothing else."""
    models = await prepared_models()
    arguments = ("--max-model-len", "2048", "--max-num-seqs", str(_SLOTS), "--no-enable-prefix-caching")
    own = serve(models.chat, "chat", folder, *arguments)
    parts = f"""
        providers: {{own: {{kind: vllm, serve: {own}}}}}
        targets: {{own: {{provider: own, model: chat}}}}
        routes: {{chat: {{targets: [own]}}}}
    """
    (folder / "holder").mkdir()
    async with served(folder / "holder", parts) as holder:
        async with asyncio.timeout(_START):
            while "ready after" not in holder.stdout:  # noqa: ASYNC110 - of another process there is no event
                await asyncio.sleep(0.2)
        (words,) = [child.cmdline() for child in holder.stats.children() if "--uds" in child.cmdline()]
        yield Engine(Path(words[words.index("--uds") + 1]))


@asynccontextmanager
async def _router(folder: Path, engine: Engine) -> AsyncIterator[ServerProcess]:
    """Run the router that is measured: ``plain`` queues nothing, ``queued`` lets few calls in at once."""
    # After the default of 2 s whoever waited goes first: on a slow machine that is soon everyone.
    patient = (
        "max_queue: 1000, queue_timeout: 300s, max_wait_boost: 60s, timeouts: {first_token: 300s, idle: 60s}"
    )
    own = f'{{kind: vllm, base_url: "{engine.base_url}", {patient}, max_concurrency'
    parts = f"""
        providers: {{plain: {own}: 1000}}, queued: {own}: {_SLOTS}}}}}
        targets: {{plain: {{provider: plain, model: chat}}, queued: {{provider: queued, model: chat}}}}
        routes: {{plain: {{targets: [plain]}}, queued: {{targets: [queued]}}}}
        telemetry: {{log: {{level: warning}}}}
    """
    (folder / "router").mkdir()
    async with served(folder / "router", parts) as router:
        yield router


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.vllm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="of turns, at each concurrency")
    asyncio.run(main(parser.parse_args().rounds))
