"""The public router: the same works as a server's, for one process of one's own.

What only a server has is left out: who calls, its ports, its telemetry.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Self

from router_server.config import Config, load
from router_server.core.endings import Endings
from router_server.core.observer import Observer
from router_server.core.observers import fan_out
from router_server.core.results import Invocation
from router_server.core.types import ChatRequest, Delta, DeltaKind, EmbedRequest, Generation
from router_server.library.blocking import BlockingRouter
from router_server.library.conversation import (
    Conversation,
    Reply,
    at_least_one,
    generation_of,
    messages_of,
    text_of,
    texts_of,
)
from router_server.library.environment import config_from
from router_server.library.lifetime import Home, NotRunningError, opened, own
from router_server.library.stats import Stats, Tally, TargetStats
from router_server.works import Works


class Router:
    """Routes calls as a server with the same configuration would.

    ``async with`` gives the router itself, plain ``with`` one whose methods block.

    Args:
        config: what the file says; ``auth``, ``telemetry`` and most of ``server`` mean nothing here.
        observers: see every call and every attempt, on the router's event loop.
    """

    _works: Works | None = None
    _blocking: BlockingRouter | None = None

    def __init__(self, config: Config, *, observers: Sequence[Observer] = ()) -> None:
        self._config = own(config)
        self._observers = tuple(observers)
        self._tally = Tally()
        self._opened: AbstractAsyncContextManager[Works] | None = None
        self._home: Home | None = None
        self._last = Stats()

    @classmethod
    def from_config(
        cls, path: Path | str, env: Mapping[str, str] | None = None, *, observers: Sequence[Observer] = ()
    ) -> Self:
        """Return a router for a configuration file.

        Raises:
            ConfigError: with every mistake of the file.
        """
        return cls(load(path, os.environ if env is None else env), observers=observers)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, observers: Sequence[Observer] = ()) -> Self:
        """Return a router for ``LLM_ENDPOINTS`` and the other variables; docs/library.md lists them.

        Raises:
            ConfigError: a variable is missing or says what makes no sense.
        """
        return cls(config_from(os.environ if env is None else env), observers=observers)

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise RuntimeError("the router is open already; make another one")
        observer = fan_out((Endings(self._tally.ended), *self._observers))
        self._opened = opened(self._config, observer, fan_out(self._observers))
        try:
            self._works = await self._opened.__aenter__()
        except BaseException:
            self._opened = None
            raise
        self._home = Home()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._opened is None or self._home is None:
            return
        self._home.check()
        self._last = self.stats()
        before, self._opened, self._works = self._opened, None, None
        await before.__aexit__(None, None, None)

    def __enter__(self) -> BlockingRouter:
        if self._opened is not None:
            raise RuntimeError("the router is open already; make another one")
        self._blocking = BlockingRouter(self)
        return self._blocking.begin()

    def __exit__(self, *_error: object) -> None:
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking.end()

    def __del__(self) -> None:
        """Warn of a router that nobody has closed."""
        if self._works is not None and self._blocking is None:
            warnings.warn(
                f"{self!r} was not closed; use `async with`", ResourceWarning, source=self, stacklevel=2
            )

    async def chat(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the router's own deadline, told to upstreams
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        user_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the whole answer.

        Args:
            conversation: what is said.
            model: a route; None: the first one of the configuration.
            timeout: seconds for the call, all attempts together; None: ``server.deadline.unary``.
            max_output_tokens: of the answer; None: the target's.
            temperature: 0 to 2; None: the target's.
            user_id: whom the call is for; what is ``sticky`` or limited by user goes by it.
            labels: of the call, for ``sticky`` and ``affinity`` by label, and for observers.

        Raises:
            ValueError: an argument is out of its range, or the conversation is none.
            RouterError: no target answered; it says why, and when to come back.
            NotRunningError: the router is not open here.
        """
        generation = generation_of(max_output_tokens, temperature)
        request = self._chat_request(conversation, model, generation, user_id, labels)
        result = await self._running.succession.door.chat(request, _invocation(timeout))
        return Reply(text_of(result), result.trail.target, result)

    async def stream_chat(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        max_output_tokens: int | None = None,
        temperature: float | None = None,
        user_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[str]:
        """Yield the answer's text as it comes; arguments as in `chat`.

        Another target takes over unseen before the first piece; afterwards a broken stream raises.

        Raises:
            ValueError: as in `chat`.
            RouterError: no target answered, or the stream broke.
            NotRunningError: the router is not open here.
        """
        generation = generation_of(max_output_tokens, temperature)
        request = self._chat_request(conversation, model, generation, user_id, labels)
        door = self._running.succession.door
        async with aclosing(door.stream(request, _invocation(timeout))) as events:
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
        user_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> list[list[float]]:
        """Return one vector per input, in order.

        Raises:
            ValueError: there are no inputs, or an argument is out of its range.
            RouterError: no target answered.
            NotRunningError: the router is not open here.
        """
        at_least_one("dimensions", dimensions)
        request = EmbedRequest(
            self._route(model), texts_of(inputs), dimensions, user_id=user_id, labels=dict(labels or {})
        )
        result = await self._running.succession.door.embed(request, _invocation(timeout))
        vectors = result.vectors
        numbers = memoryview(vectors.data).cast("f")
        wide = vectors.dimensions
        return [list(numbers[row * wide : (row + 1) * wide]) for row in range(vectors.rows)]

    def stats(self) -> Stats:
        """Return what became of the calls so far, and how each target is; once closed, how it was then."""
        if self._works is None:
            return self._last
        targets = {
            name: TargetStats(healthy=one.serving, inflight=sum(e.gate.inflight for e in one.endpoints))
            for name, one in self._works.assembly.destinations.items()
        }
        return self._tally.stats(targets)

    @property
    def _running(self) -> Works:
        if self._works is None or self._home is None:
            raise NotRunningError("the router is not running; use it inside `async with` or `with`")
        self._home.check()
        return self._works

    def _chat_request(
        self,
        conversation: Conversation,
        model: str | None,
        generation: Generation,
        user_id: str,
        labels: Mapping[str, str] | None,
    ) -> ChatRequest:
        return ChatRequest(
            self._route(model),
            messages_of(conversation),
            generation,
            user_id=user_id,
            labels=dict(labels or {}),
        )

    def _route(self, model: str | None) -> str:
        return next(iter(self._config.routes)) if model is None else model


def _invocation(timeout: float | None) -> Invocation:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout}; it has to be more than 0 seconds")
    return Invocation(uuid.uuid4().hex, timeout)
