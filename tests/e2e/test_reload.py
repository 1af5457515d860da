"""The configuration changes while the server runs: in a process of its own, by signal and by file."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc.aio import AioRpcError

from tests.e2e.process import ServerProcess, served
from tests.e2e.serving import CHAT_PATH, answer, chat, events_of, fails, pieces, text_of
from tests.upstream import SSE_HEAD, Upstream, event, json_reply, sse_reply

_PATIENCE = 20.0
"""Seconds in which a busy machine reloads."""

NO_WATCH = "watch_config: null\ndrain_delay: 0s"


def config(reply: str, **more: str) -> str:
    return f"""
        providers:
          m: {{kind: mock, reply: "{reply}", {more.get("m", "")}}}
          slow: {{kind: mock, reply: "one two three four five six", tokens_per_second: 10}}
          {more.get("providers", "")}
        targets:
          t: {{provider: m, model: x}}
          s: {{provider: slow, model: x}}
          {more.get("targets", "")}
        routes:
          chat: {{targets: [t]}}
          slow: {{targets: [s]}}
          {more.get("routes", "")}
    """


class Reloading:
    """A server whose file is changed."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.path = server.folder / "router.yaml"
        self._head = self.path.read_text().partition("providers:")[0]

    def write(self, parts: str) -> None:
        self.path.write_text(self._head + parts.replace("\n        ", "\n"))

    async def reload(self, parts: str) -> str:
        """Change the file, say so, and return what the log says of it."""
        self.write(parts)
        return await self.hang_up()

    async def hang_up(self) -> str:
        before = self.said
        self.server.signal(signal.SIGHUP)
        return await self.news(before)

    async def news(self, before: list[str]) -> str:
        async with asyncio.timeout(_PATIENCE):
            while not self.told(before):  # noqa: ASYNC110 - another process tells, by its output
                await asyncio.sleep(0.02)
        return "\n".join(self.said[len(before) :])

    def told(self, before: list[str]) -> bool:
        return any("read again" in line or "refused" in line for line in self.said[len(before) :])

    @property
    def said(self) -> list[str]:
        return [line for line in self.server.stderr.splitlines() if "configuration " in line.lower()]

    async def ask(self, model: str = "chat") -> str:
        response = await self.server.stub.Chat(chat(model))
        return str(response.message.content[0].text)


@asynccontextmanager
async def reloading(folder: Path, parts: str, server: str = NO_WATCH) -> AsyncIterator[Reloading]:
    async with served(folder, parts, server=server) as running:
        yield Reloading(running)


async def test_a_hangup_in_the_middle_of_a_stream_leaves_it_and_changes_the_next_call(tmp_path: Path) -> None:
    async with reloading(tmp_path, config("before")) as it:
        stream = it.server.stub.StreamChat(chat("slow"))
        messages = aiter(stream)
        first = [await anext(messages), await anext(messages)]
        said = await it.reload(config("after").replace("one two", "uno due"))
        assert "changed: providers.m, providers.slow" in said
        assert await it.ask() == "after"
        rest = await events_of(stream)
        text = text_of([("delta", message.delta) for message in first if message.HasField("delta")] + rest)
        assert text == "one two three four five six"
        assert rest[-1][0] == "finished"
        assert await it.ask("slow") == "uno due three four five six"
        it.server.signal(signal.SIGTERM)
        assert await it.server.exit_code(within=20) == 0


async def test_a_broken_file_is_refused_whole_and_named(tmp_path: Path) -> None:
    async with reloading(tmp_path, config("before")) as it:
        broken = config("after").replace("provider: slow", "provider: nobody")
        said = await it.reload(broken)
        line = next(
            n for n, text in enumerate(it.path.read_text().splitlines(), 1) if "provider: nobody" in text
        )
        assert f"router.yaml:{line}: targets.s.provider" in said
        assert await it.ask() == "before"
        async with asyncio.timeout(_PATIENCE):
            async for state in it.server.watch("config"):
                if state == "NOT_SERVING":
                    break
        assert await it.server.health("readiness") == "SERVING"
        it.path.write_text("providers: [")
        assert "router.yaml:1" in await it.hang_up()
        assert "in use" in await it.reload(config("after"))
        assert await it.ask() == "after"
        async with asyncio.timeout(_PATIENCE):
            async for state in it.server.watch("config"):
                if state == "SERVING":
                    break


async def test_a_budget_comes_and_goes(tmp_path: Path) -> None:
    dear = config("answer").replace("{provider: m, model: x}", "{provider: m, model: x, price: {request: 1}}")
    limited = dear.replace("{targets: [t]}", "{targets: [t], budget: {daily_usd: 1.5}}")
    async with reloading(tmp_path, dear) as it:
        assert await it.ask() == "answer"
        assert "changed: routes.chat" in await it.reload(limited)
        assert await it.ask() == "answer"
        assert (await fails(it.server.stub.Chat(chat()))).reason == "BUDGET_EXCEEDED"
        await it.reload(limited.replace("1.5", "2.5"))
        assert await it.ask() == "answer", "what was spent is remembered, and there is more now"
        assert (await fails(it.server.stub.Chat(chat()))).reason == "BUDGET_EXCEEDED"
        await it.reload(dear)
        assert await it.ask() == "answer"


async def test_what_cannot_change_is_named_and_stays(tmp_path: Path) -> None:
    async with reloading(tmp_path, config("before")) as it:
        parts = config("after") + "\n        redis: redis://127.0.0.1:1/0\n"
        it.path.write_text(
            it.path.read_text().partition("providers:")[0].replace("server:", "server:\n  workers: 2")
            + parts.replace("\n        ", "\n")
        )
        said = await it.hang_up()
        assert "restart for them: redis, server.workers" in said
        assert await it.ask() == "after"


async def test_a_removed_target_is_closed_once_its_last_call_has_ended(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with Upstream() as gone, Upstream() as stays:
        for upstream in (gone, stays):
            upstream.on("/v1/models", json_reply({"data": []}))
        gone.on(
            CHAT_PATH, (*SSE_HEAD, event(pieces("a", finish=None)[0]), go_on, *sse_reply(pieces("b"))[1:])
        )
        stays.on(CHAT_PATH, json_reply(answer("still here")))
        more = {
            "providers": f'stays: {{kind: openai, api_key: very-secret-b, base_url: "{stays.base_url}"}}',
            "targets": "k: {provider: stays, model: x}",
            "routes": "kept: {targets: [k]}",
        }
        both = {
            "providers": f"{more['providers']}\n          gone: {{kind: openai, api_key: very-secret-a, "
            f'base_url: "{gone.base_url}"}}',
            "targets": f"{more['targets']}\n          g: {{provider: gone, model: x}}",
            "routes": f"{more['routes']}\n          going: {{targets: [g]}}",
        }
        async with reloading(tmp_path, config("before", **both)) as it:
            assert await it.ask("kept") == "still here"
            stream = it.server.stub.StreamChat(chat("going"))
            await anext(aiter(stream))
            said = await it.reload(config("before", **more))
            assert "providers.gone (removed), targets.g (removed), routes.going (removed)" in said
            assert (await fails(it.server.stub.Chat(chat("going")))).reason == "MODEL_NOT_FOUND"
            serving = next(c for c in gone.connections if any(r.path == CHAT_PATH for r in c.requests))
            assert not serving.closed.is_set()
            go_on.set()
            assert text_of(await events_of(stream)).endswith("b")
            async with asyncio.timeout(_PATIENCE):
                for connection in gone.connections:
                    await connection.closed.wait()
            assert await it.ask("kept") == "still here"
            used = [c for c in stays.connections if any(r.path == CHAT_PATH for r in c.requests)]
            assert len(used) == 1, "an unchanged provider keeps its connections"
            assert not used[0].closed.is_set()


async def test_a_lower_limit_counts_the_calls_that_run(tmp_path: Path) -> None:
    stays = "tokens_per_second: 0.001, timeouts: {idle: 1h}"
    async with reloading(tmp_path, config("x y", m=f"max_concurrency: 2, {stays}")) as it:
        calls = [it.server.stub.StreamChat(chat()) for _ in range(2)]
        for call in calls:
            await anext(aiter(call))
        await it.reload(config("x y", m=f"max_concurrency: 1, max_queue: 0, {stays}"))
        assert (await fails(it.server.stub.StreamChat(chat()))).reason == "ROUTER_SATURATED"
        calls[0].cancel()
        assert (await fails(it.server.stub.StreamChat(chat()))).reason == "ROUTER_SATURATED"
        await it.reload(config("x y", m=f"max_concurrency: 2, max_queue: 0, {stays}"))
        async with asyncio.timeout(_PATIENCE):
            while not await begins(it.server.stub.StreamChat(chat())):  # noqa: ASYNC110 - asked anew
                await asyncio.sleep(0.02)
        calls[1].cancel()


async def begins(call: Any) -> bool:
    """Tell whether a stream is let in, and leave it."""
    try:
        await anext(aiter(call))
    except AioRpcError:
        return False
    call.cancel()
    return True


async def test_the_file_is_watched_also_through_a_symbolic_link(tmp_path: Path) -> None:
    async with reloading(tmp_path, config("before"), "watch_config: 50ms\ndrain_delay: 0s") as it:
        before = it.said
        it.write(config("changed"))
        assert "in use" in await it.news(before)
        assert await it.ask() == "changed"
        before = it.said
        other = tmp_path / "other.yaml"
        other.write_text(it.path.read_text().replace("changed", "linked"))
        (tmp_path / "link").symlink_to(other)
        (tmp_path / "link").replace(it.path)
        assert "in use" in await it.news(before)
        assert await it.ask() == "linked"
        before = it.said
        it.path.unlink()
        (tmp_path / "link").symlink_to(other)
        await asyncio.sleep(0.2)
        assert it.said == before, "a file that is gone for a moment is no news"


@pytest.mark.timeout(120)
async def test_fifty_reloads_under_load_lose_no_call(tmp_path: Path) -> None:
    done = asyncio.Event()
    answered = 0

    async def keep_asking(it: Reloading, ask: Any) -> None:
        nonlocal answered
        while not done.is_set():
            await ask(it)
            answered += 1

    async def unary(it: Reloading) -> None:
        assert (await it.ask()).startswith("reply")

    async def streamed(it: Reloading) -> None:
        text = text_of(await events_of(it.server.stub.StreamChat(chat("quick"))))
        assert text.startswith("reply")

    def version(number: int) -> str:
        # Every other time the provider's session is a new one, every third the limits change.
        m = f"max_concurrency: {40 + number % 3}, dimensions: {4 + number % 2}"
        return config(f"reply {number}", m=m, routes="quick: {targets: [t]}")

    async with reloading(tmp_path, version(0)) as it:
        load = [asyncio.create_task(keep_asking(it, ask)) for ask in (unary, streamed) for _ in range(4)]
        for number in range(1, 51):
            assert "in use" in await it.reload(version(number))
        done.set()
        await asyncio.gather(*load)
        assert await it.ask() == "reply 50"
        assert answered > 50
        it.server.signal(signal.SIGTERM)
        assert await it.server.exit_code(within=20) == 0
