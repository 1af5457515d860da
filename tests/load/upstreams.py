"""Two upstreams in a process of their own: ``python -m tests.load.upstreams SEED KIND``.

The unsteady one does everything that an upstream can do wrong, and goes away altogether from time to time;
the steady one answers. What is done to a call depends on the seed, on the call's number, which is in its
text, and on how often it came here, so that every run does the same to the same call.

Asked ``look``, it tells how many connections are open and in use; ``done``, how often it did which wrong;
``calm`` ends all faults.
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
from tests.faults.wires import OPENAI, WIRES, Wire, events, said
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

_WELL, _RESTS = 0.7, 0.002
"""Shares of the requests that are answered well, and with a reason to be left alone."""


def _faults(wire: Wire, at: int) -> dict[str, Reply]:
    answer = UNSTEADY
    own_error = sse_reply([*events(wire, answer)[:at], {"error": {"code": "500"}}])
    return {
        "429": wire.refusal(429, retry_after=0.1),
        "500": wire.refusal(500),
        "503": wire.refusal(503),
        "too long": wire.too_long(),
        "filtered": filtered(wire),
        "reset": RESET,
        "silence": SILENCE,
        "late": late(wire, answer, TOO_LONG),
        "stalled": stalled(wire, answer, at, TOO_LONG),
        "cut by a reset": cut(wire, answer, at),
        "cut by a close": cut(wire, answer, at, End.CLOSE),
        "garbled": garbled(wire, answer, at),
        "ended early": either(wire, ended(events(wire, answer)[:at]), json_reply({"choices": []})),
        "an error in the stream": either(wire, own_error, wire.refusal(500)),
        "unterminated by a close": unterminated(wire, answer, End.CLOSE),
        "unterminated by a reset": unterminated(wire, answer, End.RESET),
    }


def _reasons_to_rest(wire: Wire) -> dict[str, Reply]:
    """Return what makes the router leave a target alone; rare, so that the rest is met too."""
    return {f"{status} for long": wire.refusal(status) for status in (429, 401, 404)}


FAULTS = frozenset(_faults(OPENAI, 1))
"""The names of all faults, on either wire."""


class Unsteady:
    """The replies of the upstream that does wrong, in almost a third of the cases."""

    def __init__(self, wire: Wire, seed: str) -> None:
        self._wire = wire
        self._seed = seed
        self._came: Counter[int] = Counter()
        self.done: Counter[str] = Counter()
        self.calm = False

    def __call__(self, request: Request) -> Reply:
        """Return what is said to this request."""
        found = _CALL.search(request.body)
        number = int(found[1]) if found else 0
        self._came[number] += 1
        draws = random.Random(f"{self._seed} {number} {self._came[number]}")  # noqa: S311 - to be repeated
        luck = draws.random()
        if self.calm or luck < _WELL:
            return whole(self._wire, UNSTEADY)
        rests = luck > 1 - _RESTS
        wrong = _reasons_to_rest(self._wire) if rests else _faults(self._wire, draws.randrange(1, WORDS))
        name = draws.choice(list(wrong))
        self.done[name] += 1
        return wrong[name]


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
    seed, kind = sys.argv[1:]
    wire = next(wire for wire in WIRES if wire.kind == kind)
    async with Upstream() as unsteady, Upstream() as steady:
        choice = Unsteady(wire, seed)
        watched = {
            "unsteady": Watched(unsteady, choice),
            "steady": Watched(steady, lambda _request: whole(wire, STEADY)),
        }
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
        await answer_questions(urls, {"look": look, "done": lambda: choice.done, "calm": calm})


async def _up(upstream: Upstream) -> None:
    await upstream.stop()
    await upstream.start()


if __name__ == "__main__":
    asyncio.run(main())
