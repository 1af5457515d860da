"""Every secret that a configuration holds, so that the log can mask them. Refuses to know what they open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from router_server.config.shared import SharedUrl


def secrets_of(value: Any) -> Iterator[str]:
    """Yield the text of every non-empty `SecretStr` in ``value``, however deep it lies."""
    if isinstance(value, SharedUrl):
        yield from value.secrets()
    elif isinstance(value, SecretStr):
        if text := value.get_secret_value():
            yield text
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_of(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from secrets_of(item)
