"""What a call held is freed when the call ends, not when the garbage collector comes by.

A cycle of references keeps all that it reaches until a collection of the oldest generation, and strings,
which are most of what a stream buffers, do not bring that any nearer.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from modelrouter import AsyncClient
from modelrouter.v1 import models_pb2
from router_server.core.attempt import Attempt
from router_server.core.call import Call
from router_server.core.outbox import LIMIT, Outbox
from router_server.core.stream import StreamMachine
from tests.e2e.phases import until
from tests.e2e.serving import chat, pieces
from tests.faults.faults import RESET, SILENCE, cut, garbled, whole
from tests.faults.stage import OF_PRIMARY, SHORT, Stage, stage, told
from tests.faults.wires import OPENAI
from tests.upstream import SSE_HEAD, Reply, Request, event

HELD = (Call, Attempt, StreamMachine, Outbox)

DOES: dict[str, Reply] = {
    "nothing wrong": whole(OPENAI, OF_PRIMARY),
    "an error": OPENAI.refusal(503),
    "a bad key": OPENAI.refusal(401),
    "a refusal": OPENAI.refusal(400),
    "a filter": OPENAI.filtered(streaming=True),
    "a reset": RESET,
    "silence": SILENCE,
    "a cut": cut(OPENAI, OF_PRIMARY, 40),
    "garbage": garbled(OPENAI, OF_PRIMARY, 30),
}


def held() -> list[weakref.ref[Any]]:
    return [weakref.ref(one) for one in gc.get_objects() if isinstance(one, HELD)]


@contextmanager
def nothing_collected() -> Iterator[list[weakref.ref[Any]]]:
    """Collect nothing meanwhile; what other tests still hold is given."""
    gc.collect()
    gc.disable()
    try:
        yield held()
    finally:
        gc.enable()


async def forgotten(made: Stage, before: list[weakref.ref[Any]]) -> None:
    """Wait until nothing of a call is left, but for what grpc.aio keeps of the last RPC until the next."""
    await made.served.stub.ListModels(models_pb2.ListModelsRequest())
    await until(lambda: not [one for one in held() if one not in before])


@pytest.mark.parametrize("does", DOES)
async def test_a_call_leaves_nothing_to_collect(does: str) -> None:
    async with stage(OPENAI, SHORT) as made, AsyncClient(made.served.target, max_attempts=1) as client:
        made.client = client
        made.primary.always(DOES[does])
        for route in ("chat", "alone"):
            for way in ("stream", "unary") if does != "silence" else ("stream",):
                with nothing_collected() as before:
                    await told(made.call(way, model=route))
                    await forgotten(made, before)


def endless(_request: Request) -> Iterator[Any]:
    yield from SSE_HEAD
    while True:
        yield event(pieces("x" * 8_192, finish=None)[0])


async def test_what_was_buffered_for_a_reader_is_freed_when_it_leaves() -> None:
    async with stage(OPENAI, SHORT) as made:
        made.primary.always(endless)
        with nothing_collected():
            call = made.served.stub.StreamChat(chat())
            await call.read()
            outbox = next(one for one in gc.get_objects() if isinstance(one, Outbox))
            await until(lambda: outbox.size >= LIMIT)
            call.cancel()
            await until(lambda: made.served.idle)
            await until(lambda: outbox.size == 0)
