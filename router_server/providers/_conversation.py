"""What the kinds without a wire read in a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from router_server.core.types import Message, Role, Text


def text_of(message: Message) -> str:
    """Return the message's text parts, joined."""
    return "".join(part.text for part in message.content if isinstance(part, Text))


def last_user_text(messages: Sequence[Message]) -> str:
    """Return what the user said last, or nothing."""
    return next((text_of(m) for m in reversed(messages) if m.role is Role.USER), "")
