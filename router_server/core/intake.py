"""What the upstream of one attempt has sent so far: checked, counted, its deltas handed on.

Pure. Two attempts that race have one each, and only the winner's deltas reach the `StreamMachine`. Refuses
to know what the caller has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.needs import estimate_tokens
from router_server.core.types import (
    Delta,
    DeltaKind,
    EngineTimes,
    Finish,
    FinishReason,
    Message,
    Part,
    Reasoning,
    Refusal,
    Report,
    Role,
    StreamItem,
    Text,
    ToolCall,
    Usage,
)


class Intake:
    """One upstream's stream.

    Args:
        keep_deltas: remember the deltas, for those who record contents.

    Attributes:
        usage: the last usage that the upstream told, or None.
        reported_model: the name that it gave itself, or empty.
        engine: where it says that its time went, or None.
        finish_reason: why it stopped, or None where it has not said so.
    """

    def __init__(self, *, keep_deltas: bool = False) -> None:
        self.usage: Usage | None = None
        self.reported_model = ""
        self.engine: EngineTimes | None = None
        self.finish_reason: FinishReason | None = None
        self._deltas: list[Delta] | None = [] if keep_deltas else None
        self._characters = 0

    @property
    def tokens(self) -> int:
        """About how many tokens came."""
        return estimate_tokens(self._characters)

    @property
    def answer(self) -> Message | None:
        """The message so far, where deltas are kept and some came."""
        return assemble(self._deltas) if self._deltas else None

    def take(self, items: Sequence[StreamItem]) -> list[Delta]:
        """Return the deltas among ``items`` that say something.

        Raises:
            UpstreamError: MALFORMED where the upstream goes on after it finished.
        """
        deltas: list[Delta] = []
        for item in items:
            if isinstance(item, Delta):
                if self.finish_reason is not None:
                    raise UpstreamError(Outcome.MALFORMED, "delta_after_finish")
                if item.text or _says_something(item):
                    self._characters += len(item.text)
                    deltas.append(item)
            elif isinstance(item, Finish):
                self._finished(item)
            else:
                self._report(item)
        if self._deltas is not None:
            self._deltas.extend(deltas)
        return deltas

    def check_finished(self) -> FinishReason:
        """Return why the upstream, whose stream is over, stopped.

        Raises:
            UpstreamError: MALFORMED where it never said so: the answer is not whole.
        """
        if self.finish_reason is None:
            raise UpstreamError(Outcome.MALFORMED, "no_finish_reason")
        return self.finish_reason

    def _finished(self, finish: Finish) -> None:
        if self.finish_reason is not None:
            raise UpstreamError(Outcome.MALFORMED, "finished_twice")
        self.finish_reason = finish.reason

    def _report(self, report: Report) -> None:
        self.usage = report.usage or self.usage
        self.reported_model = report.model or self.reported_model
        self.engine = report.engine or self.engine


def _says_something(delta: Delta) -> bool:
    return bool(delta.tool_call_id or delta.tool_name or delta.opaque_state or delta.logprobs)


def assemble(deltas: Sequence[Delta]) -> Message:
    """Return the message that ``deltas`` of one attempt make."""
    runs: dict[int, list[Delta]] = {}
    for delta in deltas:
        runs.setdefault(delta.part_index, []).append(delta)
    return Message(Role.ASSISTANT, tuple(_part(run) for _index, run in sorted(runs.items())))


def _part(run: Sequence[Delta]) -> Part:
    text = "".join(delta.text for delta in run)
    opaque = next((delta.opaque_state for delta in reversed(run) if delta.opaque_state), b"")
    match run[0].kind:
        case DeltaKind.TEXT:
            return Text(text, opaque)
        case DeltaKind.REASONING:
            return Reasoning(text, opaque)
        case DeltaKind.REFUSAL:
            return Refusal(text, opaque)
        case DeltaKind.TOOL_CALL:
            return ToolCall(run[0].tool_call_id, run[0].tool_name, text, opaque)
