"""One streamed answer put together from its events: a pure state machine, no I/O, no clock.

It obeys resets and insists on the grammar ``started (delta | heartbeat | reset)* finished``. Events of kinds
that this version does not know are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

import grpc

from modelrouter.answers import Answer
from modelrouter.errors import MalformedAnswer, StreamInterrupted
from modelrouter.v1 import chat_pb2

_Kind = Literal["text", "reasoning", "tool_call", "refusal"]


class _State(Enum):
    WAITING = auto()
    STARTED = auto()
    FINISHED = auto()


class Assembly:
    """Takes the events of one stream, in order, and knows the answer so far."""

    def __init__(self) -> None:
        self._state = _State.WAITING
        self._parts: dict[int, _Part] = {}
        self._answer = chat_pb2.ChatResponse(message=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT))

    @property
    def begun(self) -> bool:
        """Whether anything has arrived."""
        return self._state is not _State.WAITING

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join("".join(p.pieces) for _, p in sorted(self._parts.items()) if p.kind == "text")

    def feed(self, event: chat_pb2.StreamChatResponse) -> None:
        """Take the next event.

        Raises:
            MalformedAnswer: the event may not come here.
        """
        kind = event.WhichOneof("event")
        if kind is None:
            return
        if (self._state is _State.WAITING) != (kind == "started") or self._state is _State.FINISHED:
            raise self._malformed(f"the event `{kind}` came {_PLACES[self._state]}")
        match kind:
            case "started":
                self._start(event.started)
            case "delta":
                self._add(event.delta)
            case "reset":
                self._reset(event.reset)
            case "finished":
                self._finish(event.finished)

    def end(self) -> Answer:
        """Return the whole answer of a stream that ended with OK.

        Raises:
            StreamInterrupted: it ended without `finished`, so the answer is cut off.
        """
        if self._state is not _State.FINISHED:
            raise StreamInterrupted(
                "the stream ended before the answer was complete; ask again",
                code=grpc.StatusCode.ABORTED,
                reason="STREAM_TRUNCATED",
                partial=self.text,
            )
        self._answer.message.content.extend(part.content() for _, part in sorted(self._parts.items()))
        return Answer(self._answer)

    def _start(self, started: chat_pb2.StreamStarted) -> None:
        self._state = _State.STARTED
        self._answer.id = started.id
        self._answer.model = started.model
        self._answer.route.CopyFrom(started.route)

    def _add(self, delta: chat_pb2.ContentDelta) -> None:
        kind = delta.WhichOneof("delta")
        part = self._parts.setdefault(delta.part_index, _Part())
        if not part.accepts(kind):
            raise self._malformed(f"part {delta.part_index} turned from {part.kind} into {kind}")
        part.add(kind, delta)
        self._answer.logprobs.extend(delta.logprobs)

    def _reset(self, reset: chat_pb2.StreamReset) -> None:
        self._answer.route.CopyFrom(reset.route)
        if reset.resumed:
            return
        self._parts.clear()
        del self._answer.logprobs[:]

    def _finish(self, finished: chat_pb2.StreamFinished) -> None:
        self._state = _State.FINISHED
        self._answer.finish_reason = finished.finish_reason
        self._answer.usage.CopyFrom(finished.usage)
        self._answer.route.CopyFrom(finished.route)

    def _malformed(self, what: str) -> MalformedAnswer:
        return MalformedAnswer(
            f"the router broke the stream's grammar: {what}",
            code=grpc.StatusCode.INTERNAL,
            reason="STREAM_MALFORMED",
            partial=self.text,
        )


_PLACES = {
    _State.WAITING: "before `started`",
    _State.STARTED: "a second time",
    _State.FINISHED: "after `finished`",
}


@dataclass(slots=True)
class _Part:
    """One part of the answer; its kind is settled by the first delta that has one."""

    kind: _Kind | None = None
    pieces: list[str] = field(default_factory=list)
    call: chat_pb2.ToolCall = field(default_factory=chat_pb2.ToolCall)
    opaque_state: bytes = b""

    def accepts(self, kind: _Kind | None) -> bool:
        return kind is None or self.kind in {None, kind}

    def add(self, kind: _Kind | None, delta: chat_pb2.ContentDelta) -> None:
        self.kind = kind or self.kind
        self.opaque_state = delta.opaque_state or self.opaque_state
        match kind:
            case "text":
                self.pieces.append(delta.text)
            case "reasoning":
                self.pieces.append(delta.reasoning)
            case "refusal":
                self.pieces.append(delta.refusal)
            case "tool_call":
                self.call.id = delta.tool_call.id or self.call.id
                self.call.name = delta.tool_call.name or self.call.name
                self.pieces.append(delta.tool_call.arguments_json_fragment)

    def content(self) -> chat_pb2.ContentPart:
        part = chat_pb2.ContentPart(opaque_state=self.opaque_state)
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                part.text = text
            case "refusal":
                part.refusal = text
            case "reasoning":
                part.reasoning.text = text
            case "tool_call":
                part.tool_call.CopyFrom(self.call)
                part.tool_call.arguments_json = text
        return part
