"""The chunks of an OpenAI-like stream become deltas. Pure: events in, stream items out.

Everything that one read brought is merged: consecutive pieces of the same part make one delta. Copes with
the liberties that compatible servers take: usage in every chunk, tool calls without index, with one id
repeated or none, or whole in one chunk, reasoning under two names, no ``[DONE]``. Refuses to know sockets.
"""

from __future__ import annotations

from typing import Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import (
    Delta,
    DeltaKind,
    EngineTimes,
    Finish,
    Report,
    StreamItem,
    TokenLogprob,
    Usage,
)
from router_server.providers._openai_wire_answer import decode
from router_server.providers._openai_wire_repeats import Repeats
from router_server.providers._openai_wire_shapes import (
    WireAnswer,
    WireChoice,
    WireMessage,
    finish_reason,
    logprobs_of,
    times_of,
    usage_of,
)
from router_server.providers._openai_wire_tools import ToolCalls

_DONE: Final = b"[DONE]"
_TEXT: Final = DeltaKind.TEXT


class StreamedAnswer:
    """One answer as its chunks come in."""

    def __init__(self) -> None:
        self.finished = False
        """The server has said why it stopped: the answer is whole, whatever happens next."""
        self.done = False
        """The server has said that nothing more will come."""
        self._parts: dict[DeltaKind, int] = {}
        self._part_count = 0
        self._tools: ToolCalls | None = None
        self._model = ""
        self._items: list[StreamItem] = []
        self._usage: Usage | None = None
        self._times: EngineTimes | None = None
        self._report_model = False
        self._repeats = Repeats(_text_of)
        self._run_part = -1
        self._run_kind = _TEXT
        self._run_texts: list[str] = []
        self._run_id = ""
        self._run_name = ""
        self._run_logprobs: list[TokenLogprob] = []

    def take(self, events: list[bytes]) -> list[StreamItem]:
        """Return what the data of ``events`` brought, in order and merged; what it reports comes last.

        Raises:
            UpstreamError: MALFORMED, or what an error object among them means.
        """
        texts = [] if self.finished else self._repeats.read(events, 0)
        if texts and len(texts) == len(events) and _TEXT in self._parts:  # as nearly always
            return [Delta(self._parts[_TEXT], _TEXT, "".join(texts))]
        at = 0
        while at < len(events) and not self.done:
            if texts:
                self._add_text(_TEXT, "".join(texts))
                at += len(texts)
            else:
                self._take_event(events[at])
                at += 1
            texts = [] if self.finished else self._repeats.read(events, at)
        return self._flush()

    def take_alone(self, data: bytes) -> Delta | None:
        """Return what ``data`` brought, where it is one event that is like those before but for its text."""
        part = self._parts.get(_TEXT)
        if part is None or self.finished:
            return None
        text = self._repeats.read_alone(data)
        return Delta(part, _TEXT, text) if text else None

    def end(self) -> None:
        """The stream is over.

        Raises:
            UpstreamError: MALFORMED, ``no_finish_reason``: the answer is not whole.
        """
        if not self.finished:
            raise UpstreamError(Outcome.MALFORMED, "no_finish_reason")

    def _take_event(self, event: bytes) -> None:
        if event == _DONE:
            self.done = True
        elif self.finished:
            self._take_after_finish(event)
        else:
            chunk = decode(event)
            self._take_chunk(chunk)
            if text := _text_alone(chunk):
                self._repeats.learn(event, text)

    def _take_after_finish(self, event: bytes) -> None:
        """Look for the figures only; the answer is whole, so that nothing here can spoil it any more."""
        try:
            chunk = decode(event)
        except UpstreamError:
            return
        self._take_figures(chunk)

    def _take_chunk(self, chunk: WireAnswer) -> None:
        if chunk.model and not self._model:
            self._model = chunk.model
            self._report_model = True
        self._take_figures(chunk)
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._take_choice(choice)

    def _take_figures(self, chunk: WireAnswer) -> None:
        if chunk.usage is not None:
            self._usage = usage_of(chunk.usage)
            self._times = times_of(chunk.metrics)

    def _take_choice(self, choice: WireChoice) -> None:
        if choice.delta is not None:
            self._take_delta(choice.delta)
        if choice.logprobs is not None:
            logprobs = logprobs_of(choice.logprobs)
            if logprobs:
                self._take_logprobs(logprobs)
        if choice.finish_reason:
            reason = finish_reason(choice.finish_reason, has_tool_calls=bool(self._tools))
            if self._tools is not None:
                self._tools.check_complete()
            self._end_run()
            self._items.append(Finish(reason))
            self.finished = True

    def _take_delta(self, delta: WireMessage) -> None:
        if delta.content:
            self._add_text(_TEXT, delta.content)
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            self._add_text(DeltaKind.REASONING, reasoning)
        if delta.refusal:
            self._add_text(DeltaKind.REFUSAL, delta.refusal)
        for fragment in delta.tool_calls or ():
            if self._tools is None:
                self._tools = ToolCalls(self._new_part)
            piece = self._tools.take(fragment)
            if piece is not None:
                self._start_run(piece.part_index, DeltaKind.TOOL_CALL)
                self._run_texts.append(piece.text)
                self._run_id = self._run_id or piece.tool_call_id
                self._run_name = self._run_name or piece.tool_name

    def _add_text(self, kind: DeltaKind, text: str) -> None:
        part = self._parts.get(kind)
        if part is None:
            part = self._parts[kind] = self._new_part()
        if part != self._run_part:
            self._start_run(part, kind)
        self._run_texts.append(text)

    def _take_logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> None:
        if self._run_part < 0:
            self._add_text(_TEXT, "")
        self._run_logprobs.extend(logprobs)

    def _new_part(self) -> int:
        self._part_count += 1
        return self._part_count - 1

    def _start_run(self, part: int, kind: DeltaKind) -> None:
        if part == self._run_part:
            return
        self._end_run()
        self._run_part, self._run_kind = part, kind

    def _end_run(self) -> None:
        if self._run_part < 0:
            return
        self._items.append(
            Delta(
                self._run_part,
                self._run_kind,
                "".join(self._run_texts),
                self._run_id,
                self._run_name,
                tuple(self._run_logprobs),
            )
        )
        self._run_part = -1
        self._run_texts.clear()
        self._run_logprobs.clear()
        self._run_id = self._run_name = ""

    def _flush(self) -> list[StreamItem]:
        self._end_run()
        if self._usage is not None or self._report_model:
            self._items.append(Report(self._usage, self._model if self._report_model else "", self._times))
            self._usage, self._times, self._report_model = None, None, False
        items, self._items = self._items, []
        return items


def _text_of(event: bytes) -> str | None:
    """Return the text of an event that brings nothing else; None also where it cannot be read."""
    try:
        return _text_alone(decode(event))
    except UpstreamError:
        return None


def _text_alone(chunk: WireAnswer) -> str | None:
    """Return the text of a chunk that brings nothing else, as nearly all do."""
    if chunk.usage is not None or not chunk.choices or len(chunk.choices) > 1:
        return None
    choice = chunk.choices[0]
    delta = choice.delta
    if delta is None or choice.index or choice.finish_reason or choice.logprobs is not None:
        return None
    other = delta.reasoning_content or delta.reasoning or delta.refusal or delta.tool_calls
    return None if other else delta.content
