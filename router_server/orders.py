"""What the parent says to its workers once they serve, and what they answer: one configuration after another.

Two steps, so that all take it or none: each builds what it is told to, beside what it has in use; only when
all could, all are told to go by it.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator, Sequence
from enum import Enum, auto
from typing import Any, Final

from router_server.config import Config
from router_server.providers import SetupError

DONE: Final = "done"
"""What a worker answers; anything else says why it could not."""


class Step(Enum):
    """What becomes of the configuration that was to be prepared."""

    FOLLOW = auto()
    REFUSE = auto()


Order = Config | Step
"""A configuration is an order to prepare it."""


class Orders:
    """Gives orders to one worker.

    Args:
        process: the worker, which has said that it serves.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def give(self, order: Order) -> None:
        """Give an order and wait until it is carried out.

        Raises:
            SetupError: the worker could not.
        """
        sending, reading = self._process.stdin, self._process.stdout
        assert sending is not None and reading is not None  # noqa: S101, PT018 - they were asked for
        sending.write(_packed(order))
        answer = await reading.readline()
        said = answer.decode().rstrip("\n")
        if said != DONE:
            raise SetupError(said or "a worker has ended")


async def give_all(workers: Sequence[Orders], orders: Sequence[Order]) -> None:
    """Give each worker its order.

    Raises:
        SetupError: one could not carry it out; all have answered.
    """
    answers = await asyncio.gather(
        *(worker.give(order) for worker, order in zip(workers, orders, strict=True)), return_exceptions=True
    )
    for answer in answers:
        if answer is not None:
            raise answer


async def heard(stream: int) -> AsyncGenerator[Order, None]:
    """Yield the orders that come on a file descriptor until it is closed: the parent is gone."""
    reader = asyncio.StreamReader()
    with open(stream, "rb", buffering=0, closefd=False) as pipe:  # noqa: ASYNC230 - it is open already
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(8), "big")
                order: Any = pickle.loads(await reader.readexactly(size))  # noqa: S301 - from our parent
                yield order
        except asyncio.IncompleteReadError:
            return
        finally:
            transport.close()


def answer(problem: str = "") -> bytes:
    """Return what a worker says to an order; ``problem`` is why it could not, on one line."""
    return (" ".join(problem.split()) or DONE).encode() + b"\n"


def _packed(order: Order) -> bytes:
    data = pickle.dumps(order)
    return len(data).to_bytes(8, "big") + data
