"""A model router that follows a script: a real gRPC server on a real socket, free to misbehave.

It runs on an event loop in a thread of its own, so that blocking, asyncio and subprocess clients can all
be tried against it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from modelrouter.v1 import chat_pb2, common_pb2, embed_pb2, models_pb2, service_pb2_grpc

ROUTE = common_pb2.RouteInfo(
    route="chat",
    target="local/tiny",
    provider="local",
    upstream_model="tiny",
    attempts=[{"target": "local/tiny"}],
)
OTHER_ROUTE = common_pb2.RouteInfo(route="chat", target="cloud/big", provider="cloud", upstream_model="big")
USAGE = common_pb2.Usage(input_tokens=7, output_tokens=3)


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with this status."""

    code: grpc.StatusCode
    message: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Hang:
    """Wait until the caller goes away."""


Step = Message | Fail | Hang
Script = Sequence[Step]


def rich(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *details: Message,
    metadata: Mapping[str, str] | None = None,
    pushback_ms: int | None = None,
    domain: str = "modelrouter",
    garble: int | None = None,
) -> Fail:
    """Return a failure with details, and perhaps pushback; ``garble`` counts to one that will not parse."""
    info = error_details_pb2.ErrorInfo(domain=domain, reason=reason, metadata=metadata or {})
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    if garble is not None:
        status.details[garble].value = b"\xff"
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if pushback_ms is not None:
        trailers.append(("grpc-retry-pushback-ms", str(pushback_ms)))
    return Fail(code, message, tuple(trailers))


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    whole = int(seconds)
    return error_details_pb2.RetryInfo(
        retry_delay=Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
    )


def started(route: common_pb2.RouteInfo = ROUTE) -> chat_pb2.StreamChatResponse:
    return chat_pb2.StreamChatResponse(started={"id": "call-1", "model": "chat", "route": route})


def delta(text: str = "", *, index: int = 0, **fields: Any) -> chat_pb2.StreamChatResponse:
    content = {"text": text} if text else {}
    return chat_pb2.StreamChatResponse(delta={"part_index": index, **content, **fields})


def reset(*, resumed: bool, route: common_pb2.RouteInfo = OTHER_ROUTE) -> chat_pb2.StreamChatResponse:
    return chat_pb2.StreamChatResponse(reset={"reason": "timeout", "route": route, "resumed": resumed})


def heartbeat() -> chat_pb2.StreamChatResponse:
    return chat_pb2.StreamChatResponse(heartbeat=chat_pb2.Heartbeat())


def finished(route: common_pb2.RouteInfo = ROUTE) -> chat_pb2.StreamChatResponse:
    return chat_pb2.StreamChatResponse(
        finished={"finish_reason": chat_pb2.FINISH_REASON_STOP, "usage": USAGE, "route": route}
    )


def spoken(*pieces: str) -> list[Step]:
    """Return the script of a stream that says these pieces and nothing else happens."""
    return [started(), *(delta(piece) for piece in pieces), finished()]


def answer(text: str) -> chat_pb2.ChatResponse:
    return chat_pb2.ChatResponse(
        id="call-1",
        model="chat",
        message={"role": chat_pb2.ROLE_ASSISTANT, "content": [{"text": text}]},
        finish_reason=chat_pb2.FINISH_REASON_STOP,
        usage=USAGE,
        route=ROUTE,
    )


@dataclass(slots=True)
class Call:
    """What the server saw of one RPC."""

    request: Any
    metadata: dict[str, str | bytes]
    time_remaining: float | None
    over: threading.Event = field(default_factory=threading.Event)
    """Set once the RPC is over, which only the caller can bring about while the script hangs."""


class ScriptedRouter(service_pb2_grpc.ModelRouterServiceServicer):
    """Answers the n-th call with the n-th script, and every further one with the last."""

    def __init__(self) -> None:
        self.target = ""
        self.calls: list[Call] = []
        self._scripts: list[Script] = []

    def play(self, *scripts: Script) -> None:
        """Follow these scripts from the next call on."""
        self.calls.clear()
        self._scripts = list(scripts)

    def script(self, request: Any, *, streamed: bool) -> Script:
        """Return what the next call is answered with."""
        del request, streamed
        return self._scripts[min(len(self.calls), len(self._scripts) - 1)]

    async def Chat(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        return await self._one(request, context)

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        return await self._one(request, context)

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        return await self._one(request, context)

    async def StreamChat(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC names it
        async for step in self._steps(request, context, streamed=True):
            yield step

    async def _one(self, request: Any, context: Any) -> Any:
        return await anext(self._steps(request, context, streamed=False))

    async def _steps(self, request: Any, context: Any, *, streamed: bool) -> AsyncIterator[Any]:
        remaining = context.time_remaining()
        call = Call(request, dict(context.invocation_metadata()), remaining)
        context.add_done_callback(lambda _: call.over.set())
        script = self.script(request, streamed=streamed)
        self.calls.append(call)
        for step in script:
            match step:
                case Fail(code, message, trailers):
                    await context.abort(code, message, trailers)
                case Hang():
                    await asyncio.Event().wait()
                case _:
                    yield step


@contextmanager
def running(
    servicer: ScriptedRouter, bind: Callable[[grpc.aio.Server], str] | None = None
) -> Iterator[ScriptedRouter]:
    """Serve on a free port of this machine, or as ``bind`` says, until the block is left."""
    ready: threading.Event = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        server = grpc.aio.server()
        service_pb2_grpc.add_ModelRouterServiceServicer_to_server(servicer, server)
        servicer.target = (bind or _plaintext)(server)
        await server.start()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        ready.set()
        await ended.wait()
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield servicer
    finally:
        stop[0]()
        thread.join()


def _plaintext(server: grpc.aio.Server) -> str:
    return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


MODELS = models_pb2.ListModelsResponse(
    models=[
        {
            "name": "chat",
            "operations": ["OPERATION_CHAT"],
            "targets": ["local/tiny", "cloud/big"],
            "available": True,
        },
        {"name": "embed", "operations": ["OPERATION_EMBED"], "targets": ["local/words"], "available": False},
    ]
)


def embedded(rows: int, dimensions: int, matrix: bytes) -> embed_pb2.EmbedResponse:
    assert len(matrix) == rows * dimensions * 4
    return embed_pb2.EmbedResponse(
        id="call-2",
        model="embed",
        dimensions=dimensions,
        matrix_le_f32=matrix,
        usage={"input_tokens": 4},
        route=ROUTE,
    )
