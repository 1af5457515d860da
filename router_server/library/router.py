"""The public router: the core with its checks, for one process of one's own.

What a server adds is left out: callers' keys, quotas, budgets, alerts, telemetry, engines.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from router_server.assembled import Assembly
from router_server.assembly import assemble, prepare
from router_server.config import Config, load
from router_server.core.endings import Endings
from router_server.core.observers import fan_out
from router_server.core.results import ChatResult, Invocation
from router_server.core.types import ChatRequest, Delta, DeltaKind, EmbedRequest, Generation, Message, Role
from router_server.core.types import Text as TextPart
from router_server.library.blocking import BlockingRouter
from router_server.library.environment import config_from
from router_server.library.stats import Stats, Tally, TargetStats

Conversation = str | Sequence[Mapping[str, str]]
"""What the user says, or messages: ``{"role": "system" | "user" | "assistant", "content": "…"}``."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer.

    Attributes:
        text: what the model says.
        target: who answered, by its name in the configuration.
        result: all of it: parts, usage, finish reason, attempts.
    """

    text: str
    target: str
    result: ChatResult = field(repr=False)


class Router:
    """Routes calls as a server with the same configuration would.

    ``async with`` gives the router itself, plain ``with`` one whose methods block.

    Args:
        config: routes, targets and providers; the rest of it is a server's matter.
    """

    def __init__(self, config: Config) -> None:
        self._config = _without_callers(config)
        self._tally = Tally()
        self._assembly: Assembly | None = None
        self._checking: list[asyncio.Task[None]] = []
        self._blocking: BlockingRouter | None = None

    @classmethod
    def from_config(cls, path: Path | str, env: Mapping[str, str] | None = None) -> Self:
        """Return a router for a configuration file.

        Raises:
            ConfigError: with every mistake of the file.
        """
        return cls(load(path, os.environ if env is None else env))

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Return a router for ``LLM_ENDPOINTS`` and the other variables; docs/library.md lists them.

        Raises:
            ConfigError: a variable is missing or says what makes no sense.
        """
        return cls(config_from(os.environ if env is None else env))

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(prepare, self._config, lambda _words: None)
        clock = asyncio.get_running_loop().time
        assembly = assemble(self._config, fan_out((Endings(self._tally.ended),)), clock, changed=lambda: None)
        assembly.begin()
        self._assembly = assembly
        self._checking = [
            asyncio.create_task(assembly.checks.run(), name="active checks"),
            asyncio.create_task(assembly.loads.run(), name="engine loads"),
        ]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._checking:
            task.cancel()
        await asyncio.wait(self._checking)
        await self._running.close()
        self._assembly = None

    def __enter__(self) -> BlockingRouter:
        self._blocking = BlockingRouter(self)
        return self._blocking.begin()

    def __exit__(self, *_error: object) -> None:
        if self._blocking is not None:
            self._blocking.end()

    async def chat(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the router's own deadline, told to upstreams
        max_output_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Reply:
        """Return the whole answer.

        Args:
            conversation: what is said.
            model: a route; None: the first one of the configuration.
            timeout: seconds for the call, all attempts together; None: ``server.deadline.unary``.
            max_output_tokens: of the answer; None: the target's.
            temperature: 0 to 2; None: the target's.

        Raises:
            RouterError: no target answered; it says why, and when to come back.
        """
        generation = Generation(max_output_tokens=max_output_tokens, temperature=temperature)
        request = ChatRequest(self._route(model), _messages(conversation), generation)
        result = await self._running.router.chat(request, _invocation(timeout))
        parts = result.answer.message.content
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        return Reply(text, result.trail.target, result)

    async def stream_chat(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        max_output_tokens: int | None = None,
        temperature: float | None = None,
    ) -> AsyncIterator[str]:
        """Yield the answer's text as it comes; arguments as in `chat`.

        Another target takes over unseen before the first piece; afterwards a broken stream raises.

        Raises:
            RouterError: no target answered, or the stream broke.
        """
        generation = Generation(max_output_tokens=max_output_tokens, temperature=temperature)
        request = ChatRequest(self._route(model), _messages(conversation), generation)
        async with aclosing(self._running.router.stream(request, _invocation(timeout))) as events:
            async for event in events:
                if isinstance(event, Delta) and event.kind is DeltaKind.TEXT:
                    yield event.text

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        dimensions: int | None = None,
    ) -> list[list[float]]:
        """Return one vector per input, in order.

        Raises:
            RouterError: no target answered.
        """
        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        request = EmbedRequest(self._route(model), texts, dimensions)
        result = await self._running.router.embed(request, _invocation(timeout))
        vectors = result.vectors
        numbers = memoryview(vectors.data).cast("f")
        wide = vectors.dimensions
        return [list(numbers[row * wide : (row + 1) * wide]) for row in range(vectors.rows)]

    def stats(self) -> Stats:
        """Return what became of the calls so far, and how each target is."""
        targets = {
            name: TargetStats(healthy=one.serving, inflight=sum(e.gate.inflight for e in one.endpoints))
            for name, one in self._running.destinations.items()
        }
        return self._tally.stats(targets)

    @property
    def _running(self) -> Assembly:
        if self._assembly is None:
            raise RuntimeError("the router is not running; use it inside `async with` or `with`")
        return self._assembly

    def _route(self, model: str | None) -> str:
        return next(iter(self._config.routes)) if model is None else model


def _without_callers(config: Config) -> Config:
    """Return ``config`` with nothing in it that asks who calls, or counts what callers use."""
    routes = {name: route.model_copy(update={"limits": None}) for name, route in config.routes.items()}
    return config.model_copy(update={"auth": None, "limits": None, "routes": routes})


def _invocation(timeout: float | None) -> Invocation:
    return Invocation(uuid.uuid4().hex, timeout)


def _messages(conversation: Conversation) -> tuple[Message, ...]:
    if isinstance(conversation, str):
        return (Message(Role.USER, (TextPart(conversation),)),)
    return tuple(_message(one) for one in conversation)


def _message(said: Mapping[str, Any]) -> Message:
    unknown = said.keys() - {"role", "content"}
    if unknown or not isinstance(said.get("content"), str):
        raise ValueError('a message is {"role": …, "content": text} and nothing else')
    return Message(Role(said.get("role", "user")), (TextPart(said["content"]),))
