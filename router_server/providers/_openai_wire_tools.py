"""Puts the fragments of streamed tool calls to the call that they belong to. Pure.

OpenAI numbers the calls and sends id and name with each one's first fragment. Others send no number, or 0
for every call, repeat the id in each fragment, or leave it out. Refuses to know what arguments mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import Delta, DeltaKind
from router_server.providers._openai_wire_answer import new_call_id
from router_server.providers._openai_wire_shapes import WireToolCall


@dataclass(slots=True)
class _Call:
    part: int
    id: str = ""
    """As the server gave it, if it did."""
    name: str = ""
    waiting: list[str] = field(default_factory=list)
    """Arguments that came before the name."""

    def is_another(self, call_id: str, name: str) -> bool:
        """Tell whether a fragment with this id and name, either may be empty, is of another call."""
        if call_id and self.id:
            return call_id != self.id
        return bool(name and self.name and name != self.name)


class ToolCalls:
    """The tool calls of one answer; ``new_part`` gives each its part index."""

    def __init__(self, new_part: Callable[[], int]) -> None:
        self._new_part = new_part
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, fragment: WireToolCall) -> Delta | None:
        """Return what a fragment adds, None where that cannot be told before the call's name is known."""
        function = fragment.function
        name = (function.name if function else None) or ""
        arguments = (function.arguments if function else None) or ""
        call = self._call_of(fragment, name)
        call.id = call.id or fragment.id or ""
        if call.name:
            return Delta(call.part, DeltaKind.TOOL_CALL, arguments)
        call.waiting.append(arguments)
        if not name:
            return None
        call.name = name
        text = "".join(call.waiting)
        call.waiting.clear()
        return Delta(call.part, DeltaKind.TOOL_CALL, text, call.id or new_call_id(), name)

    def check_complete(self) -> None:
        """Check that every call has a name.

        Raises:
            UpstreamError: MALFORMED, ``tool_call_without_name``.
        """
        if not all(call.name for call in self._calls):
            raise UpstreamError(Outcome.MALFORMED, "tool_call_without_name")

    def _call_of(self, fragment: WireToolCall, name: str) -> _Call:
        known = self._known(fragment, name)
        if known is not None:
            return known
        call = _Call(self._new_part(), fragment.id or "")
        self._calls.append(call)
        if fragment.index is not None:
            self._by_index[fragment.index] = call
        return call

    def _known(self, fragment: WireToolCall, name: str) -> _Call | None:
        if fragment.index is not None:
            call = self._by_index.get(fragment.index)
            # Some number every call 0: another id or another name begins another call.
            return None if call is None or call.is_another(fragment.id or "", name) else call
        if fragment.id:
            return next((call for call in self._calls if call.id == fragment.id), None)
        # Neither number nor id: a name begins a call, anything else goes on with the last one.
        return self._calls[-1] if self._calls and not name else None
