"""A router that answers what a test tells it to, behind a real server and a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from modelrouter.v1 import chat_pb2, service_pb2_grpc
from router_server.core.observer import RpcObservation, RpcObserver, RpcRecord, RpcStart
from router_server.core.results import (
    ChatResult,
    EmbedResult,
    Finished,
    Invocation,
    ModelInfo,
    Started,
    StreamEvent,
    Trail,
)
from router_server.core.service import CallRouter
from router_server.core.types import (
    Answer,
    ChatRequest,
    Delta,
    DeltaKind,
    EmbedRequest,
    FinishReason,
    Message,
    Role,
    Usage,
)
from router_server.rpc.health import HealthBoard
from router_server.rpc.server import RpcServer
from router_server.rpc.settings import ServerSettings

TRAIL = Trail("chat", "gpt", "openai", "gpt-4o-mini")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

Stream = Callable[[ChatRequest, Invocation], AsyncGenerator[StreamEvent, Any]]


def chat_request(text: str = "hello", **fields: Any) -> chat_pb2.ChatRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return chat_pb2.ChatRequest(model="chat", messages=[message], **fields)


def started(call: Invocation, trail: Trail = TRAIL) -> Started:
    return Started(call.call_id, "chat", trail)


def delta(text: str, part: int = 0) -> Delta:
    return Delta(part, DeltaKind.TEXT, text)


def finished(trail: Trail = TRAIL) -> Finished:
    return Finished(FinishReason.STOP, Usage(1, 2), trail)


async def three_words(request: ChatRequest, call: Invocation) -> AsyncGenerator[StreamEvent, None]:
    del request
    yield started(call)
    for word in ("one ", "two ", "three"):
        yield delta(word)
    yield finished()


async def echo(request: ChatRequest, call: Invocation) -> ChatResult:
    said = request.messages[-1].content
    answer = Answer(Message(Role.ASSISTANT, said), FinishReason.STOP, Usage(3, 4))
    return ChatResult(call.call_id, request.model, answer, Usage(3, 4), TRAIL)


@dataclass
class ScriptedRouter(CallRouter):
    """Each answer is a function; `requests` holds what the core would have seen."""

    on_chat: Callable[[ChatRequest, Invocation], Awaitable[ChatResult]] = echo
    on_stream: Stream = three_words
    on_embed: Callable[[EmbedRequest, Invocation], Awaitable[EmbedResult]] | None = None
    listed: tuple[ModelInfo, ...] = ()
    requests: list[ChatRequest | EmbedRequest] = field(default_factory=list)
    calls: list[Invocation] = field(default_factory=list)
    open_streams: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stream ended, whatever the reason: permits are free and upstreams closed."""

    async def chat(self, request: ChatRequest, invocation: Invocation) -> ChatResult:
        self._saw(request, invocation)
        return await self.on_chat(request, invocation)

    async def stream(self, request: ChatRequest, invocation: Invocation) -> AsyncGenerator[StreamEvent, None]:
        self._saw(request, invocation)
        self.open_streams += 1
        # What is sent to a stream reaches the script, as it would the core.
        events = self.on_stream(request, invocation)
        sent: Any = None
        try:
            while True:
                sent = yield await events.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await events.aclose()
            self.open_streams -= 1
            self.closed.set()

    async def embed(self, request: EmbedRequest, invocation: Invocation) -> EmbedResult:
        self._saw(request, invocation)
        assert self.on_embed is not None
        return await self.on_embed(request, invocation)

    def models(self) -> tuple[ModelInfo, ...]:
        return self.listed

    def _saw(self, request: ChatRequest | EmbedRequest, invocation: Invocation) -> None:
        self.requests.append(request)
        self.calls.append(invocation)


@dataclass
class RpcLog(RpcObserver):
    """Keeps every record, in the order in which RPCs ended."""

    starts: list[RpcStart] = field(default_factory=list)
    records: asyncio.Queue[RpcRecord] = field(default_factory=asyncio.Queue)

    def rpc(self, start: RpcStart) -> RpcObservation:
        self.starts.append(start)
        return _Kept(self)

    async def next(self) -> RpcRecord:
        async with asyncio.timeout(5):
            return await self.records.get()


class _Kept(RpcObservation):
    def __init__(self, log: RpcLog) -> None:
        self._log = log

    @property
    def trace_id(self) -> str:
        return TRACE_ID

    def ended(self, record: RpcRecord) -> None:
        self._log.records.put_nowait(record)


@dataclass
class Serving:
    """A started server with a channel to it."""

    server: RpcServer
    router: ScriptedRouter
    health: HealthBoard
    log: RpcLog
    channel: aio.Channel
    stub: service_pb2_grpc.ModelRouterServiceAsyncStub

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@asynccontextmanager
async def serving(
    router: ScriptedRouter | None = None,
    settings: ServerSettings | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[Serving]:
    router = router or ScriptedRouter()
    board, log = HealthBoard(), RpcLog()
    server = RpcServer(settings or ServerSettings(listen="127.0.0.1:0"), router, board, log)
    await server.start()
    board.set_ready(True)
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
            yield Serving(server, router, board, log, channel, stub_of(channel))
    finally:
        await server.stop()


def stub_of(channel: aio.Channel) -> service_pb2_grpc.ModelRouterServiceAsyncStub:
    stub: Any = service_pb2_grpc.ModelRouterServiceStub(channel)
    return stub  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Refusal:
    """A failed RPC, its details unpacked by the name of their type."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]
    trailers: dict[str, str | bytes]

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.details["ErrorInfo"].metadata)


def refusal(error: aio.AioRpcError) -> Refusal:
    pairs: Any = error.trailing_metadata()
    trailers: dict[str, str | bytes] = dict(pairs)
    details = unpacked(trailers.get("grpc-status-details-bin", b""))
    return Refusal(error.code(), error.details() or "", details, trailers)


def unpacked(data: str | bytes) -> dict[str, Any]:
    """Return the details of a serialized google.rpc.Status by the name of their type."""
    assert isinstance(data, bytes)
    details = {}
    for packed in status_pb2.Status.FromString(data).details:
        name = packed.TypeName().rpartition(".")[2]
        detail = getattr(error_details_pb2, name)()
        assert packed.Unpack(detail)
        details[name] = detail
    return details


async def refused(call: Awaitable[Any]) -> Refusal:
    """Await a call that must fail, and return how."""
    try:
        await call
    except aio.AioRpcError as error:
        return refusal(error)
    raise AssertionError("the call was answered")


async def all_of(call: Any) -> list[chat_pb2.StreamChatResponse]:
    return [event async for event in call]


async def unread(it: Serving) -> Any:
    """Read one message of a stream and no more, until the reader is given up for it; return the call."""
    call = it.stub.StreamChat(chat_request())
    await call.read()
    record = await it.log.next()  # nothing was read meanwhile
    assert (record.code, record.reason) == ("ABORTED", "STREAM_INTERRUPTED")
    assert it.router.open_streams == 0
    return call


async def until(true: Callable[[], object]) -> None:
    """Wait for a state that grpc changes, and tells nobody of."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


async def read_to_the_end(call: Any) -> None:
    """Read what is left of a stream.

    Raises:
        AioRpcError: it did not end with OK.
    """
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
        pass
