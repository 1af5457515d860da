"""How one stream is read: which way, what that asks of the router, what each event means to the reader.

Everything that the blocking and the asyncio stream share; refuses to know how events arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import grpc

from modelrouter.answers import Answer
from modelrouter.assembly import Assembly
from modelrouter.errors import ModelRouterError, StreamInterrupted
from modelrouter.status import from_rpc_error
from modelrouter.v1 import chat_pb2, common_pb2

OnReset = Callable[[chat_pb2.StreamReset], None]


class Way(Enum):
    """The ways in which a stream can be read."""

    TEXT = "its text is being iterated over"
    EVENTS = "its events are being iterated over"
    RESULT = "result() was called"


class Reading:
    """One stream being read."""

    def __init__(self, request: chat_pb2.ChatRequest, target: str, on_reset: OnReset | None) -> None:
        self._request = request
        self._target = target
        self._on_reset = on_reset
        self._way: Way | None = None
        self._assembly = Assembly()
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer of a stream that was read to its end.

        Raises:
            RuntimeError: it was not.
        """
        if self._answer is None:
            raise RuntimeError("the stream was not read to its end, so there is no whole answer yet")
        return self._answer

    def begin(self, way: Way) -> chat_pb2.ChatRequest:
        """Settle the way of reading and return the request to send.

        Raises:
            RuntimeError: the stream is already being read.
        """
        if self._way is not None:
            raise RuntimeError(f"a stream can be read once, and {self._way.value}; call stream_chat() again")
        self._way = way
        if self._request.routing.stream_recovery == common_pb2.STREAM_RECOVERY_UNSPECIFIED:
            self._request.routing.stream_recovery = self._recovery(way)
        return self._request

    def event(self, event: chat_pb2.StreamChatResponse) -> chat_pb2.StreamChatResponse:
        """Take the next event and return it.

        Raises:
            MalformedAnswer: the event may not come here.
        """
        self._assembly.feed(event)
        return event

    def text(self, event: chat_pb2.StreamChatResponse) -> str:
        """Take the next event and return the text that it adds, which may be empty.

        Raises:
            MalformedAnswer: the event may not come here.
            StreamInterrupted: the text so far is to be forgotten, and there is no ``on_reset`` to tell.
        """
        before = self._assembly.text if event.HasField("reset") else ""
        self._assembly.feed(event)
        if event.HasField("reset") and not event.reset.resumed:
            self._forget(event.reset, before)
        return event.delta.text

    def end(self) -> None:
        """The RPC ended with OK.

        Raises:
            StreamInterrupted: the answer is not complete.
        """
        self._answer = self._assembly.end()

    def failed(self, error: grpc.RpcError) -> ModelRouterError:
        """Return what the RPC's failure means to the reader."""
        partial = self._assembly.text if self._assembly.begun else None
        return from_rpc_error(error, target=self._target, partial=partial)

    def _recovery(self, way: Way) -> common_pb2.StreamRecovery:
        # Text that was handed out cannot be taken back, unless the caller said how.
        if way is Way.TEXT and self._on_reset is None:
            return common_pb2.STREAM_RECOVERY_NONE
        return common_pb2.STREAM_RECOVERY_RESTART

    def _forget(self, reset: chat_pb2.StreamReset, text: str) -> None:
        if self._on_reset is None:
            raise StreamInterrupted(
                f"the answer starts over with {reset.route.target}, and the text read so far cannot be taken "
                "back; pass on_reset=, or use result()",
                code=grpc.StatusCode.ABORTED,
                reason="STREAM_INTERRUPTED",
                partial=text,
            )
        self._on_reset(reset)
