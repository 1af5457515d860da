"""The options of a call: their types, and the field of the request that each one fills.

None leaves an option to the server, as does not giving it. Refuses to judge values: the server does that,
and names every bad field at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message as AnyMessage

from modelrouter.messages import ToolMode, tool_choice
from modelrouter.v1 import chat_pb2, common_pb2, embed_pb2

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high"]
StreamRecovery = Literal["none", "restart", "resume"]


class CallOptions(TypedDict, total=False):
    """What every call takes; times in seconds."""

    allowed_targets: Sequence[str] | None
    """Only these of the route's targets, in this order."""
    allow_failover: bool | None
    first_token_timeout: float | None
    priority: int | None
    """Higher is served first when a target's queue is full of waiters."""
    allow_cache: bool | None
    labels: Mapping[str, str] | None
    user_id: str | None
    """The end user on whose behalf the call is made."""
    idempotency_key: str | None
    provider_options: Mapping[str, Mapping[str, Any]] | None
    """Provider name or kind → what is merged into the upstream request."""


class ChatOptions(CallOptions, total=False):
    """What a chat call takes."""

    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop_sequences: str | Sequence[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    reasoning_effort: ReasoningEffort | None
    top_logprobs: int | None
    tools: Sequence[chat_pb2.Tool] | None
    tool_choice: ToolMode | chat_pb2.ToolChoice | None
    response_format: chat_pb2.ResponseFormat | None


class StreamOptions(ChatOptions, total=False):
    """What a streamed chat call takes."""

    stream_recovery: StreamRecovery | None
    """What to do when the stream breaks; by default what the way it is read can stand."""
    coalesce_window: float | None
    """Deltas that arrive within this window come as one."""
    heartbeat_interval: float | None
    """A heartbeat event whenever the stream has been silent this long."""


class EmbedOptions(CallOptions, total=False):
    """What an embedding call takes."""

    dimensions: int | None
    task: Literal["query", "document"] | None


def fill(request: AnyMessage, options: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Write the options into the request, each in place of what its field held.

    Raises:
        TypeError: there is no such option, or its value is of the wrong kind.
        ValueError: an option's value does not exist.
    """
    for name, value in options.items():
        if name not in fields:
            raise TypeError(f"there is no option {name!r}{_suggestion(name, fields)}")
        if value is None:
            continue
        try:
            fields[name].assign(request, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Field:
    """Where an option goes: a field's name, the submessage that holds it, and how a value is written."""

    name: str
    parent: str = ""
    write: Callable[[Any], Any] = lambda value: value

    def assign(self, request: AnyMessage, value: Any) -> None:
        """Put ``value`` in the place of what the field held."""
        holder = getattr(request, self.parent) if self.parent else request
        filled = type(holder)(**{self.name: self.write(value)})
        holder.ClearField(self.name)
        holder.MergeFrom(filled)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _words(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _json_texts(options: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {provider: json.dumps(fields) for provider, fields in options.items()}


def _one_of(enum: EnumTypeWrapper, prefix: str) -> Callable[[str], int]:
    words = {name.removeprefix(prefix).lower(): int(number) for name, number in enum.items() if number}

    def write(word: str) -> int:
        if word not in words:
            raise ValueError(f"{word!r} is none of {', '.join(words)}")
        return words[word]

    return write


def _tool_choice(value: ToolMode | chat_pb2.ToolChoice) -> chat_pb2.ToolChoice:
    return tool_choice(value) if isinstance(value, str) else value


def _fields(
    message: type[AnyMessage], parent: str, writers: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Field]:
    names = message.DESCRIPTOR.fields_by_name
    return {
        name: Field(name, parent, writers[name]) if name in writers else Field(name, parent) for name in names
    }


_GENERATION: Final = _fields(
    chat_pb2.GenerationConfig,
    "generation",
    {
        "stop_sequences": _words,
        "reasoning_effort": _one_of(chat_pb2.ReasoningEffort, "REASONING_EFFORT_"),
    },
)
_ROUTING: Final = _fields(
    common_pb2.RoutingOptions,
    "routing",
    {
        "allowed_targets": _words,
        "first_token_timeout": _duration,
        "stream_recovery": _one_of(common_pb2.StreamRecovery, "STREAM_RECOVERY_"),
        "coalesce_window": _duration,
        "heartbeat_interval": _duration,
    },
)
_EVERY_CALL: Final = {
    **_ROUTING,
    "labels": Field("labels"),
    "user_id": Field("user_id"),
    "idempotency_key": Field("idempotency_key"),
    "provider_options": Field("provider_options_json", write=_json_texts),
}
CHAT_FIELDS: Final[Mapping[str, Field]] = {
    **_EVERY_CALL,
    **_GENERATION,
    "tools": Field("tools"),
    "tool_choice": Field("tool_choice", write=_tool_choice),
    "response_format": Field("response_format"),
}
EMBED_FIELDS: Final[Mapping[str, Field]] = {
    **_EVERY_CALL,
    "dimensions": Field("dimensions"),
    "task": Field("task", write=_one_of(embed_pb2.EmbeddingTask, "EMBEDDING_TASK_")),
}
