"""What is said to a model, as callers in the same process write it, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from router_server.core.results import ChatResult
from router_server.core.types import Message, Role, Text

Conversation = str | Sequence[Mapping[str, str]]
"""What the user says, or messages: ``{"role": "system" | "user" | "assistant", "content": "…"}``."""


class ChatOptions(TypedDict, total=False):
    """What may be said of a chat beside the conversation; see `Router.chat`."""

    model: str | None
    timeout: float | None
    max_output_tokens: int | None
    temperature: float | None
    user_id: str
    labels: Mapping[str, str]


class EmbedOptions(TypedDict, total=False):
    """What may be said of texts to be embedded; see `Router.embed`."""

    model: str | None
    timeout: float | None
    dimensions: int | None
    user_id: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer.

    Attributes:
        text: what the model says.
        target: who answered, by its name in the configuration.
        result: all of it: parts, usage, finish reason, attempts.
    """

    text: str
    target: str
    result: ChatResult = field(repr=False)


def messages_of(conversation: Conversation) -> tuple[Message, ...]:
    """Return the conversation as the core has it.

    Raises:
        ValueError: a message is not what `Conversation` says.
    """
    if isinstance(conversation, str):
        return (Message(Role.USER, (Text(conversation),)),)
    return tuple(_message(one) for one in conversation)


def text_of(result: ChatResult) -> str:
    """Return the text of a whole answer."""
    return "".join(part.text for part in result.answer.message.content if isinstance(part, Text))


def _message(said: Mapping[str, Any]) -> Message:
    unknown = said.keys() - {"role", "content"}
    if unknown or not isinstance(said.get("content"), str):
        raise ValueError('a message is {"role": …, "content": text} and nothing else')
    return Message(Role(said.get("role", "user")), (Text(said["content"]),))
