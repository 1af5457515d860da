"""What the built-in model's answer is held to, in the runtime's own terms.

The runtime drops a schema keyword that it cannot enforce, and answers as if it had not been there. Here
such a schema is refused, so that an answer that came obeys what was asked. Only grammars of our own
making reach the runtime's grammar parser, which is native code in our process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import Choice, JsonObject, JsonSchema, ResponseFormat

_ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$defs", "definitions", "title", "description", "default", "examples"}
)
_WHOLE: Final = frozenset({"$ref", "anyOf", "enum", "const"})
"""Each is enforced, but makes the runtime overlook what stands beside it, except ``type``."""
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
"""Enforced for integers only."""
_SHAPES: Final = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
    }
)


def constraint_of(wanted: ResponseFormat | None) -> Mapping[str, Any]:
    """Return the keys of a request body that hold the answer to ``wanted``.

    Raises:
        UpstreamError: INVALID_REQUEST, it cannot be enforced in full.
    """
    match wanted:
        case None:
            return {}
        case JsonObject():
            return {"response_format": {"type": "json_object"}}
        case JsonSchema(schema_json=text):
            schema = {"name": "answer", "schema": _parsed(text)}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case Choice(choices=choices):
            return {"grammar": "root ::= " + " | ".join(_literal(choice) for choice in choices)}
        case _:
            raise invalid("format_unsupported")


def invalid(reason: str) -> UpstreamError:
    """Return the refusal of a request."""
    return UpstreamError(Outcome.INVALID_REQUEST, reason)


def _literal(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08X}" for character in text) + '"'


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        schema = json.loads(text)
        # The runtime reads JSON more strictly: neither NaN nor half of a surrogate pair.
        json.dumps(schema, allow_nan=False, ensure_ascii=False).encode()
        enforced = isinstance(schema, dict) and _is_enforced(schema)
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise invalid("bad_schema") from error
    if not enforced:
        raise invalid("schema_unsupported")
    parsed: dict[str, Any] = schema
    return parsed


def _is_enforced(schema: object) -> bool:
    if not isinstance(schema, dict):
        return isinstance(schema, bool)
    keywords = schema.keys() - _ANNOTATIONS
    whole = keywords & _WHOLE
    if whole and (len(whole) > 1 or keywords - whole - {"type"}):
        return False
    if keywords & _BOUNDS and schema.get("type") != "integer":
        return False
    if not schema.get("properties", {}).keys() >= set(schema.get("required", ())):
        return False
    if not keywords <= _SHAPES | _WHOLE | _BOUNDS or not _can_be_met(schema):
        return False
    return all(map(_is_enforced, _inner(schema)))


def _can_be_met(schema: Mapping[str, Any]) -> bool:
    """Whether every range holds something: on an empty one the runtime fails in the middle of an answer."""
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + 1)
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - 1)
    items = schema.get("minItems", 0) <= schema.get("maxItems", math.inf)
    length = schema.get("minLength", 0) <= schema.get("maxLength", math.inf)
    return bool(low <= high and items and length)


def _inner(schema: Mapping[str, Any]) -> Iterator[object]:
    """Yield the schemas directly inside ``schema``."""
    for keyword in ("properties", "$defs", "definitions"):
        yield from schema.get(keyword, {}).values()
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield schema[keyword]
    yield from schema.get("anyOf", ())
