"""What calls give back: thin views on the contract's messages, which stay reachable as ``raw``.

Refuses to copy what a message already says: ``usage`` and ``route`` are the contract's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelrouter.v1 import chat_pb2, common_pb2, models_pb2


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    OTHER = "other"


_FINISH_REASONS = {
    chat_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    chat_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    chat_pb2.FINISH_REASON_TOOL_CALLS: FinishReason.TOOL_CALLS,
    chat_pb2.FINISH_REASON_CONTENT_FILTER: FinishReason.CONTENT_FILTER,
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; ``arguments_json`` is the model's own text."""

    id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as Python values.

        Raises:
            ValueError: the model did not write a JSON object.
        """
        arguments = json.loads(self.arguments_json or "{}")
        if not isinstance(arguments, dict):
            raise ValueError(  # noqa: TRY004 - it is the model's text that is wrong, as with bad JSON
                f"the arguments of {self.name} are not a JSON object: {self.arguments_json!r}"
            )
        return arguments


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole chat answer."""

    raw: chat_pb2.ChatResponse

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The answer's text, without reasoning and refusal."""
        return "".join(part.text for part in self._parts("text"))

    @property
    def reasoning(self) -> str:
        """The model's thinking, where the provider shows it."""
        return "".join(part.reasoning.text for part in self._parts("reasoning"))

    @property
    def refusal(self) -> str:
        """The model's own words for declining."""
        return "".join(part.refusal for part in self._parts("refusal"))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The functions that the model wants called, in its order."""
        calls = (part.tool_call for part in self._parts("tool_call"))
        return tuple(ToolCall(call.id, call.name, call.arguments_json) for call in calls)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the model stopped."""
        return _FINISH_REASONS.get(self.raw.finish_reason, FinishReason.OTHER)

    @property
    def message(self) -> chat_pb2.Message:
        """The model's turn, to be sent back as part of the next request."""
        return self.raw.message

    @property
    def usage(self) -> common_pb2.Usage:
        """Tokens and cost of the attempt that answered."""
        return self.raw.usage

    @property
    def route(self) -> common_pb2.RouteInfo:
        """Who answered, and who was tried before."""
        return self.raw.route

    @property
    def logprobs(self) -> Sequence[chat_pb2.TokenLogprob]:
        """The log probabilities that ``top_logprobs`` asked for."""
        return self.raw.logprobs

    def _parts(self, kind: str) -> Iterator[chat_pb2.ContentPart]:
        return (part for part in self.raw.message.content if part.WhichOneof("part") == kind)


@dataclass(frozen=True, slots=True)
class Model:
    """A route that may be named in ``model=``."""

    name: str
    operations: tuple[str, ...]
    """``chat``, ``embed``."""
    targets: tuple[str, ...]
    """In the order in which they are tried; empty where the server hides them."""
    available: bool
    raw: models_pb2.Model = field(repr=False)

    @classmethod
    def of(cls, raw: models_pb2.Model) -> Model:
        """Return the view of ``raw``."""
        names = (models_pb2.Model.Operation.Name(operation) for operation in raw.operations)
        operations = tuple(name.removeprefix("OPERATION_").lower() for name in names)
        return cls(raw.name, operations, tuple(raw.targets), raw.available, raw)
