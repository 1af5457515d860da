"""One stream as its caller sees it: ``started (delta | heartbeat | reset)* finished``, or an error.

`StreamMachine` is pure: it takes the deltas of one attempt after another, and answers with events in that
grammar. It refuses to know targets, timers and tasks. `merge` joins what may travel as one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

from router_server.core.needs import estimate_tokens
from router_server.core.record import replace
from router_server.core.results import Finished, Reset, Started, StreamEvent, Trail
from router_server.core.types import (
    ChatRequest,
    Delta,
    DeltaKind,
    FinishReason,
    Usage,
)


class _State(Enum):
    WAITING = auto()
    OPEN = auto()
    FINISHED = auto()


_WAITING = _State.WAITING
_TEXT = DeltaKind.TEXT
"""Looked up once: for each token it would take 900 instructions."""


class StreamMachine:
    """The state of one stream, across its attempts.

    Args:
        call_id: the call's id.
        model: the route as the caller named it.
        keep_text: remember the text, so that another target can continue it.
    """

    def __init__(
        self,
        call_id: str,
        model: str,
        *,
        keep_text: bool = False,
    ) -> None:
        self._call_id = call_id
        self._model = model
        self._text: list[str] | None = [] if keep_text else None
        self._state = _State.WAITING
        self._only_text = True
        self._pending_reset: tuple[str, bool] | None = None
        self._first_part = 0
        self._next_part = 0
        self._delivered_characters = 0

    @property
    def committed(self) -> bool:
        """Tell whether the caller has seen a delta."""
        return self._state is not _WAITING

    @property
    def delivered_tokens(self) -> int:
        """About how many tokens of the current answer were handed on, over all its pieces."""
        return estimate_tokens(self._delivered_characters)

    @property
    def text(self) -> str:
        """The text so far, where it is kept and nothing but text came: what can be continued."""
        return "".join(self._text) if self._text is not None and self._only_text else ""

    def begin(self, *, resumed: bool, reason: str) -> None:
        """Another attempt begins; ``reason`` says why the one before ended, if it had committed."""
        if self._state is _State.OPEN:
            self._pending_reset = (reason, resumed)

    def take(self, deltas: Sequence[Delta], trail: Callable[[], Trail]) -> list[StreamEvent]:
        """Return the events that ``deltas`` of the current attempt make; one may need the ``trail``."""
        events: list[StreamEvent] = []
        if deltas and (self._state is _WAITING or self._pending_reset is not None):
            self._open(events, trail)
        for delta in deltas:
            part = self._first_part + delta.part_index
            if part >= self._next_part:
                self._next_part = part + 1
            self._delivered_characters += len(delta.text)
            if delta.kind is not _TEXT:
                self._only_text = False
            elif self._text is not None:
                self._text.append(delta.text)
            events.append(delta if part == delta.part_index else replace(delta, part_index=part))
        return events

    def end(self, reason: FinishReason, usage: Usage, trail: Callable[[], Trail]) -> list[StreamEvent]:
        """Return the last events: the answer is whole, and ``usage`` is what it took."""
        events: list[StreamEvent] = []
        self._open(events, trail)
        self._state = _State.FINISHED
        events.append(Finished(reason, usage, trail()))
        return events

    def _open(self, events: list[StreamEvent], trail: Callable[[], Trail]) -> None:
        if self._state is _WAITING:
            self._state = _State.OPEN
            events.append(Started(self._call_id, self._model, trail()))
        if self._pending_reset is None:
            return
        (reason, resumed), self._pending_reset = self._pending_reset, None
        # A continued text goes on in its own part, the last one.
        self._first_part = max(0, self._next_part - 1) if resumed else 0
        if not resumed:
            self._forget()
        events.append(Reset(reason, trail(), resumed))

    def _forget(self) -> None:
        self._next_part = 0
        self._delivered_characters = 0
        self._only_text = True
        if self._text is not None:
            self._text.clear()


def may_resume(request: ChatRequest, text: str) -> bool:
    """Tell whether another target may continue ``text``.

    Not with tools, structured output, reasoning, or stop sequences, and not after white space, which
    chat templates strip: such a stream starts over.
    """
    generation = request.generation
    return bool(
        text
        and not text[-1].isspace()
        and not request.tools
        and request.response_format is None
        and generation.reasoning_effort is None
        and not generation.stop_sequences
    )


def merge(deltas: Iterable[Delta]) -> list[Delta]:
    """Join neighbours that add to the same part, so that a burst is one message.

    A delta that opens a tool call or carries opaque state begins a message of its own.
    """
    merged: list[Delta] = []
    run: list[Delta] = []
    for delta in deltas:
        if run and not _continues(run[-1], delta):
            merged.append(_joined(run))
            run = []
        run.append(delta)
    if run:
        merged.append(_joined(run))
    return merged


def _continues(before: Delta, delta: Delta) -> bool:
    return (
        delta.part_index == before.part_index
        and delta.kind is before.kind
        and not delta.tool_call_id
        and not delta.tool_name
        and not delta.opaque_state
        and not before.opaque_state
    )


def _joined(run: list[Delta]) -> Delta:
    if len(run) == 1:
        return run[0]
    return replace(
        run[0],
        text="".join(d.text for d in run),
        logprobs=tuple(logprob for d in run for logprob in d.logprobs),
    )
