"""Values of the core as bytes and back, for keeping answers outside of the process.

Only values whose types are listed here, so that whoever can write where they are kept cannot make anything
else of them. Another version of the router may not know what this one wrote: that is an `UnreadableError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from typing import Any, Final

import msgspec

from router_server.core import errors, results, types
from router_server.core.record import Record

_KNOWN: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (
        errors.AttemptSummary,
        errors.Outcome,
        types.Answer,
        types.Blob,
        types.Delta,
        types.DeltaKind,
        types.EngineTimes,
        types.FileRef,
        types.FinishReason,
        types.MediaDetail,
        types.Message,
        types.Reasoning,
        types.Refusal,
        types.Role,
        types.Text,
        types.TokenLogprob,
        types.ToolCall,
        types.ToolResult,
        types.Usage,
        types.Vectors,
        results.ChatResult,
        results.EmbedResult,
        results.Finished,
        results.Started,
        results.Trail,
    )
}


class UnreadableError(Exception):
    """These bytes are of another version, or of nobody."""


def pack(value: Any) -> bytes:
    """Return ``value`` as bytes."""
    return msgspec.msgpack.encode(_plain(value))


def digest(*values: Any) -> str:
    """Return what is the same for the same values, whatever the order of their mappings."""
    return sha256(msgspec.msgpack.encode(_plain(values), order="deterministic")).hexdigest()


def unpack(data: bytes) -> Any:
    """Return what `pack` was given.

    Raises:
        UnreadableError: it was not made by `pack`, or by that of another version.
    """
    try:
        return _value(msgspec.msgpack.decode(data))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        raise UnreadableError from None


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        inside = [_plain(getattr(value, name)) for name in value.__struct_fields__]
        return {type(value).__name__: inside}
    if isinstance(value, Enum):
        return {type(value).__name__: [value.value]}
    if isinstance(value, Mapping):
        return {key: _plain(inside) for key, inside in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, dict):
        ((name, inside),) = plain.items()
        return _KNOWN[name](*(_value(one) for one in inside))
    if isinstance(plain, list):
        return tuple(_value(one) for one in plain)
    return plain
