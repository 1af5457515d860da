"""Any message that a contract allows: fields set or not, enums known or not, numbers at their ends."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Draw = st.DrawFn
_DEEPEST = 5
_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "{}", "[1]", '{"model": 1}', '{"a": NaN}', "[" * 2_000, "image/png", "https://x/y", "call-1", "chat"]
)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-3, 30) | st.sampled_from([-(2**31), 2**31 - 1]),
    FieldDescriptor.TYPE_INT64: st.integers(-3, 30) | st.sampled_from([-(2**63), 2**63 - 1]),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 7) | st.sampled_from([-1, 99]),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
}


@st.composite
def any_message(draw: Draw, descriptor: Any, depth: int = 0) -> Any:
    """Return a message; its optional parts are likelier to be there than not."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.integers(0, 9)) < 6:
            _fill(draw, message, field, depth)
    return message


def _fill(draw: Draw, message: Message, field: FieldDescriptor, depth: int) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        getattr(message, field.name).update(draw(st.dictionaries(_TEXTS, _TEXTS, max_size=3)))
    elif entry is not None and depth >= _DEEPEST:
        return
    elif field.is_repeated:
        values = _values(field, depth)
        getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
    elif entry is not None:
        getattr(message, field.name).CopyFrom(draw(any_message(entry, depth + 1)))
    else:
        setattr(message, field.name, draw(_SCALARS[field.type]))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return any_message(field.message_type, depth + 1)
    return _SCALARS[field.type]
