"""What is said to a model, as callers in the same process write it, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from router_server.core.results import ChatResult
from router_server.core.types import Generation, Message, Role, Text

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


_ROLES: Final = ("system", "developer", "user", "assistant")
"""Those whose words are a text alone."""

_WARMEST: Final = 2.0


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
    if not conversation:
        raise ValueError("the conversation is empty; it needs one message at least")
    return tuple(_message(one) for one in conversation)


def texts_of(inputs: str | Sequence[str]) -> tuple[str, ...]:
    """Return what is to be embedded.

    Raises:
        ValueError: it is nothing.
    """
    texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    if not texts:
        raise ValueError("inputs is empty; it needs one text at least")
    return texts


def generation_of(max_output_tokens: int | None, temperature: float | None) -> Generation:
    """Return how an answer is to be made.

    Raises:
        ValueError: one of them is out of its range.
    """
    at_least_one("max_output_tokens", max_output_tokens)
    if temperature is not None and not 0 <= temperature <= _WARMEST:
        raise ValueError(f"temperature is {temperature}; it goes from 0 to {_WARMEST:g}")
    return Generation(max_output_tokens=max_output_tokens, temperature=temperature)


def at_least_one(name: str, number: int | None) -> None:
    """Refuse a number that is less.

    Raises:
        ValueError: it is.
    """
    if number is not None and number < 1:
        raise ValueError(f"{name} is {number}; it has to be 1 or more")


def text_of(result: ChatResult) -> str:
    """Return the text of a whole answer."""
    return "".join(part.text for part in result.answer.message.content if isinstance(part, Text))


def _message(said: Mapping[str, Any]) -> Message:
    unknown = said.keys() - {"role", "content"}
    if unknown or not isinstance(said.get("content"), str):
        raise ValueError('a message is {"role": …, "content": text} and nothing else')
    role = said.get("role", "user")
    if role not in _ROLES:
        raise ValueError(f"the role {role!r} is none of {', '.join(_ROLES)}")
    return Message(Role(role), (Text(said["content"]),))
