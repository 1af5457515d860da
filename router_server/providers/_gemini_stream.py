"""The chunks of a Gemini stream become deltas. Pure: events in, stream items out.

Text that follows text of the same kind goes on in the same part, unless either carries a thought signature:
a signature belongs to the part that it came with, even to an empty one at the end, and must go back there.
Refuses to know sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import (
    Blob,
    Delta,
    DeltaKind,
    Finish,
    FinishReason,
    Reasoning,
    Report,
    StreamItem,
    TokenLogprob,
    ToolCall,
    Usage,
)
from router_server.providers._gemini_answer import AnswerPart, read_parts
from router_server.providers._gemini_shapes import (
    WireAnswer,
    WireCandidate,
    decode,
    finish_of,
    logprobs_of,
    prompt_blocked,
    usage_of,
)
from router_server.providers._json import decoded

_EVENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class StreamedAnswer:
    """One answer of ``model`` as its chunks come in."""

    def __init__(self, model: str, retry_after_cap: float) -> None:
        self.finished = False
        """Gemini has said why it stopped: the answer is whole, whatever happens next."""
        self._model = model
        self._retry_after_cap = retry_after_cap
        self._part = -1
        self._open_kind: DeltaKind | None = None
        self._has_tool_calls = False
        self._usage: Usage | None = None
        self._reported_model = ""
        self._news = Report()

    def take(self, events: Iterable[bytes]) -> list[StreamItem]:
        """Return what the data of ``events`` brought, in order; what they report comes last, once.

        Raises:
            UpstreamError: MALFORMED; CONTENT_FILTER before any content; what an error object means.
        """
        items: list[StreamItem] = []
        for event in events:
            if self.finished:
                break
            self._take_chunk(decode(event, self._retry_after_cap), items)
        if self._news.usage is not None or self._news.model:
            items.append(self._news)
            self._news = Report()
        return items

    def end(self) -> None:
        """The stream is over.

        Raises:
            UpstreamError: MALFORMED, ``no_finish_reason``: the answer is not whole.
        """
        if not self.finished:
            raise UpstreamError(Outcome.MALFORMED, "no_finish_reason", usage=self._usage)

    def _take_chunk(self, chunk: WireAnswer, items: list[StreamItem]) -> None:
        self._take_report(chunk)
        candidate = chunk.candidate
        if candidate is not None:
            self._take_candidate(candidate, items)
        if chunk.blocked and not self.finished:
            if self._part < 0:
                raise prompt_blocked(self._usage)
            self._finish(FinishReason.CONTENT_FILTER, items)

    def _take_report(self, chunk: WireAnswer) -> None:
        usage = usage_of(chunk.usage_metadata)
        if usage is not None and usage != self._usage:
            self._usage = usage
            self._news = replace(self._news, usage=usage)
        if chunk.model_version and not self._reported_model:
            self._reported_model = chunk.model_version
            self._news = replace(self._news, model=chunk.model_version)

    def _take_candidate(self, candidate: WireCandidate, items: list[StreamItem]) -> None:
        deltas = [self._delta(part) for part in read_parts(candidate, self._model)]
        logprobs = logprobs_of(candidate.logprobs_result)
        if logprobs:
            self._attach(logprobs, deltas)
        items.extend(deltas)
        if candidate.ending:
            reason = finish_of(
                candidate.ending,
                has_content=self._part >= 0,
                has_tool_calls=self._has_tool_calls,
                usage=self._usage,
            )
            self._finish(reason, items)

    def _finish(self, reason: FinishReason, items: list[StreamItem]) -> None:
        items.append(Finish(reason))
        self.finished = True

    def _delta(self, part: AnswerPart) -> Delta:
        match part:
            case ToolCall():
                self._has_tool_calls = True
                index = self._new_part(None)
                return Delta(
                    index,
                    DeltaKind.TOOL_CALL,
                    part.arguments_json,
                    part.id,
                    part.name,
                    opaque_state=part.opaque_state,
                )
            case Blob():
                # Only a caller's own responseModalities make Gemini send one, and no delta can hold it.
                raise UpstreamError(Outcome.INVALID_REQUEST, "media_in_stream")
            case _:
                kind = DeltaKind.REASONING if isinstance(part, Reasoning) else DeltaKind.TEXT
                return Delta(
                    self._text_part(kind, part.opaque_state), kind, part.text, opaque_state=part.opaque_state
                )

    def _text_part(self, kind: DeltaKind, opaque_state: bytes) -> int:
        if opaque_state:
            return self._new_part(None)
        return self._part if kind is self._open_kind else self._new_part(kind)

    def _new_part(self, open_kind: DeltaKind | None) -> int:
        """Begin a part; ``open_kind`` is what may go on in it, None where it is complete."""
        self._part += 1
        self._open_kind = open_kind
        return self._part

    def _attach(self, logprobs: tuple[TokenLogprob, ...], deltas: list[Delta]) -> None:
        """Put the chunk's log probabilities on its last text; those of anything else have no place."""
        for at in reversed(range(len(deltas))):
            if deltas[at].kind is DeltaKind.TEXT:
                deltas[at] = replace(deltas[at], logprobs=logprobs)
                return


def events_of(body: bytes) -> list[bytes]:
    """Return the chunks of an answer that came as one JSON document, as it does from servers without SSE.

    Raises:
        UpstreamError: MALFORMED, ``not_json``.
    """
    if not body.lstrip().startswith(b"["):
        return [body]
    return [bytes(event) for event in decoded(_EVENTS, body)]
