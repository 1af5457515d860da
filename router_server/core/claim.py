"""Of several processes that are asked the same, one asks for the answer, and the others wait for it.

Refuses to know what is asked, and where claims are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

from router_server.core.deadline import Deadline
from router_server.core.errors import Phase
from router_server.core.shared import CALL_PATIENCE, UnreachableError, patient_for
from router_server.core.verdict import deadline_error

CLAIM_TTL: Final = 10.0
"""Seconds from the last word of a process until another one may claim what it had."""

_RENEW: Final = CLAIM_TTL / 3
"""Seconds between its words: two may be lost."""

_LOOK: Final = 0.1
"""Seconds between two looks of one who waits: little beside a model's answer, and 10 questions a second."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is there under a key that cannot be claimed.

    Attributes:
        question: a digest of what another one asks.
        answer: what is kept, or None: it is on its way.
    """

    question: str = ""
    answer: bytes | None = None


class Claims(Protocol):
    """Where processes claim keys of answers; each method may raise `UnreachableError`."""

    async def take(self, key: str, question: str, owner: str, ttl: float) -> Taken | None:
        """Claim ``key`` for ``ttl`` seconds from now on, unless there is what is returned instead."""

    async def release(self, key: str, question: str, owner: str) -> None:
        """End the claim, if it is still the owner's."""


class Claim:
    """One process's wish to ask for one answer, from `settled` to `close`.

    Args:
        claims: where it is made.
        key: of the answer.
        question: a digest of what is asked.
        run: runs what nobody waits for.

    Attributes:
        heard: it is closed, or it is known that no other question has the key, or that nobody can tell.
    """

    def __init__(
        self,
        claims: Claims,
        key: str,
        question: str,
        run: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._claims = claims
        self._key = key
        self._question = question
        self._run = run
        self._owner = uuid4().hex
        self._over = asyncio.Event()
        self.heard = asyncio.Event()

    async def settled(self, deadline: Deadline, clock: Callable[[], float]) -> Taken | None:
        """Wait until there is an answer, and return it, or another question; None: nobody else asks for it.

        Raises:
            RouterError: DEADLINE_EXCEEDED.
        """
        self._run(self._hold())
        try:
            taken = await self._take()
            while taken is not None and taken.answer is None and taken.question == self._question:
                self.heard.set()
                left = deadline.remaining(clock())
                if left <= 0:
                    raise deadline_error(Phase.FIRST_TOKEN)
                await asyncio.sleep(min(_LOOK, left))
                with patient_for(CALL_PATIENCE):
                    taken = await self._take()
        except UnreachableError:
            return None
        return taken

    def close(self) -> None:
        """Let others have it."""
        self._over.set()
        self.heard.set()

    async def _hold(self) -> None:
        """Keep what is claimed, or claim it once that is possible, and release it at the end."""
        while not self._over.is_set():
            try:
                async with asyncio.timeout(_RENEW):
                    await self._over.wait()
            except TimeoutError:
                with suppress(UnreachableError):
                    await self._take()
        with suppress(UnreachableError):
            await self._claims.release(self._key, self._question, self._owner)

    async def _take(self) -> Taken | None:
        return await self._claims.take(self._key, self._question, self._owner, CLAIM_TTL)
