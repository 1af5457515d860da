"""Two upstreams in a process of their own: ``python -m tests.load.upstreams SEED``.

The unsteady one does everything that an upstream can do wrong, and goes away altogether from time to time;
the steady one answers. What is done to a call depends on the seed, on the call's number, which is in its
text, and on how often it came here, so that every run does the same to the same call.

Asked ``look``, it tells how many connections are open and in use; ``calm`` ends all faults.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.faults import (
    RESET,
    SILENCE,
    cut,
    either,
    ended,
    filtered,
    garbled,
    late,
    stalled,
    unterminated,
    whole,
)
from tests.faults.wires import OPENAI, events, said
from tests.load.peer import answer_questions
from tests.upstream import End, Reply, Request, Step, Upstream, json_reply, sse_reply

WORDS = 40
UNSTEADY, STEADY = said("unsteady", WORDS), said("steady", WORDS)

TOO_LONG = 1.5
"""Seconds that are longer than any timer that the configuration of the load sets for the unsteady one."""

_UP, _DOWN = (1.0, 3.0), (0.2, 0.8)
"""Seconds between which the unsteady one is there, and is not."""

_CALL = re.compile(rb"call (\d+)")
_KEPT = 1_000

_WELL, _RESTS = 0.5, 0.002
"""Shares of the requests that are answered well, and with a reason to be left alone."""


def _faults(at: int) -> list[Reply]:
    wire, answer = OPENAI, UNSTEADY
    return [
        wire.refusal(429, retry_after=0.1),
        wire.refusal(500),
        wire.refusal(503),
        wire.too_long(),
        filtered(wire),
        RESET,
        SILENCE,
        late(wire, answer, TOO_LONG),
        stalled(wire, answer, at, TOO_LONG),
        cut(wire, answer, at),
        cut(wire, answer, at, End.CLOSE),
        garbled(wire, answer, at),
        either(wire, ended(events(wire, answer)[:at]), json_reply({"choices": []})),
        either(wire, sse_reply([*events(wire, answer)[:at], {"error": {"code": "500"}}]), wire.refusal(500)),
        unterminated(wire, answer, End.CLOSE),
        unterminated(wire, answer, End.RESET),
    ]


def _reasons_to_rest() -> list[Reply]:
    """Return what makes the router leave a target alone; rare, so that the rest is met too."""
    return [OPENAI.refusal(429), OPENAI.refusal(401), OPENAI.refusal(404)]


class Unsteady:
    """The replies of the upstream that does wrong, in half of the cases."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._came: Counter[int] = Counter()
        self.calm = False

    def __call__(self, request: Request) -> Reply:
        """Return what is said to this request."""
        found = _CALL.search(request.body)
        number = int(found[1]) if found else 0
        self._came[number] += 1
        draws = random.Random(f"{self._seed} {number} {self._came[number]}")  # noqa: S311 - to be repeated
        luck = draws.random()
        if self.calm or luck < _WELL:
            return whole(OPENAI, UNSTEADY)
        if luck > 1 - _RESTS:
            return draws.choice(_reasons_to_rest())
        return draws.choice(_faults(draws.randrange(1, WORDS)))


def _steady(_request: Request) -> Reply:
    return whole(OPENAI, STEADY)


class Watched:
    """An upstream, and how many requests it is answering."""

    def __init__(self, upstream: Upstream, choose: Callable[[Request], Reply]) -> None:
        self.upstream = upstream
        self.busy = 0
        self.sent = 0
        self._choose = choose
        upstream.always(self._reply)
        upstream.on(OPENAI.health_path, json_reply({"object": "list", "data": []}))

    def look(self) -> dict[str, int]:
        """Return what is open and in use, and forget what is not."""
        gc.collect()  # ends the replies that broke off: what broke them holds them, and they it
        self.upstream.connections[:] = [one for one in self.upstream.connections if not one.closed.is_set()]
        return {"open": len(self.upstream.connections), "busy": self.busy, "sent": self.sent}

    def _reply(self, request: Request) -> Iterator[Step]:
        if len(self.upstream.requests) > _KEPT:
            self.upstream.requests.clear()
        chosen = self._choose(request)
        self.busy += 1
        self.sent += 1
        try:
            yield from chosen(request) if callable(chosen) else chosen
        finally:
            self.busy -= 1


async def flap(upstream: Upstream, seed: str) -> None:
    """Let the upstream come and go, for ever."""
    draws = random.Random(seed)  # noqa: S311 - to be repeated
    while True:
        await asyncio.sleep(draws.uniform(*_UP))
        await upstream.stop()
        await asyncio.sleep(draws.uniform(*_DOWN))
        await upstream.start()


async def main() -> None:
    """Answer until nobody asks any more."""
    seed = sys.argv[1]
    async with Upstream() as unsteady, Upstream() as steady:
        choice = Unsteady(seed)
        watched = {"unsteady": Watched(unsteady, choice), "steady": Watched(steady, _steady)}
        flapping = asyncio.create_task(flap(unsteady, seed))

        def look() -> Any:
            return {name: one.look() for name, one in watched.items()}

        def calm() -> Any:
            choice.calm = True
            flapping.cancel()
            restarting.append(asyncio.create_task(_up(unsteady)))
            return look()

        restarting: list[asyncio.Task[None]] = []
        urls = {"unsteady": unsteady.base_url, "steady": steady.base_url}
        await answer_questions(urls, {"look": look, "calm": calm})


async def _up(upstream: Upstream) -> None:
    await upstream.stop()
    await upstream.start()


if __name__ == "__main__":
    asyncio.run(main())
