"""What a validation error means, in words that say what to do and repeat no value.

Refuses to validate anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router_server.config.problems import Finding, KeyPath, shown
from router_server.config.source import Document
from router_server.config.tree import COMMON_PROVIDER_KEYS, Config
from router_server.core.provider import Capability
from router_server.providers import SetupError, load_kind

_HIDDEN: Final = "***"
_SHORTEST_SECRET: Final = 4
"""Shorter values are in every text by chance."""

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required; add it",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text; put it in quotes if it looks like something else",
    "string_too_short": "must not be empty; give it a value or remove the key",
    "path_type": "must be the path of a file",
    "model_type": "must be a mapping of keys; write {{key: value}} or indent its keys below it",
    "dict_type": "must be a mapping of names; indent them below it",
    "list_type": "must be a list; write [a, b]",
    "tuple_type": "must be a list; write [a, b]",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
}


def findings(error: ValidationError, document: Document) -> Iterator[Finding]:
    """Say what ``error`` found in ``document``, one finding for each key."""
    seen: set[KeyPath] = set()
    for details in error.errors(include_url=False):
        location = details["loc"]
        path = key_path(location, document.data)
        if path not in seen:
            seen.add(path)
            yield Finding(path, _message(details, location, path, document))


def key_path(location: KeyPath, data: Any) -> KeyPath:
    """Return the path in the file of an error's location.

    The tree holds a kind's own keys one level further down, a list may stand for a mapping that holds it, and
    a location may end in what the file does not have: ``[key]``, or the name of a union's member. A key that
    is missing ends the path.
    """
    path: list[str | int] = []
    for part in _in_file(location):
        if isinstance(data, list) and isinstance(part, str):
            continue
        path.append(part)
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
    if path and path[-1] == "[key]":
        path.pop()
    return tuple(path)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return the most likely of the ``known`` names as a question, or all of them."""
    names = sorted(known)
    close = [name for name in names if len(wrong) > 2 and name.startswith(wrong)]  # noqa: PLR2004 - a beginning, not a letter
    close = close or get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean {shown(close[0])}?"
    return f"known here: {', '.join(map(shown, names))}" if names else "nothing is known here"


def without_secrets(message: str, path: KeyPath, document: Document) -> str:
    """Return ``message``, which is about ``path``, without anything that came from a variable."""
    for place, found in document.substituted.items():
        for secret in found.secrets:
            if place == path or len(secret) >= _SHORTEST_SECRET:
                message = _hide(secret, message)
    return message


def _hide(value: str, message: str) -> str:
    """Return ``message`` without ``value``, as it is or as a repr shows it."""
    quoted = repr(value)[1:-1]
    for form in sorted({value, quoted, quoted.replace("'", "\\'")}, key=len, reverse=True):
        message = message.replace(form, _HIDDEN)
    return message


def _in_file(location: KeyPath) -> KeyPath:
    if location[:1] == ("providers",) and location[2:3] == ("settings",):
        return location[:2] + location[3:]
    return location


def _message(details: ErrorDetails, location: KeyPath, path: KeyPath, document: Document) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(location[-1]), _known_keys(location, document.data))}"
    if kind == "enum" and location[-1] == "[key]":
        return f"unknown capability; {did_you_mean(str(path[-1]), [c.value for c in Capability])}"
    if kind in ("value_error", "assertion_error"):
        return _own_words(str(context.get("error", "")), location, path, document)
    if kind in _MESSAGES:
        return _MESSAGES[kind].format_map(context)
    return details["msg"][:1].lower() + details["msg"][1:]


def _own_words(message: str, location: KeyPath, path: KeyPath, document: Document) -> str:
    """Return a validator's own text; one of a kind that we do not know may repeat the value."""
    message = without_secrets(message, path, document)
    if _in_file(location) == location:
        return message
    value: Any = document.data
    for part in path:
        value = value[part] if isinstance(value, dict) or isinstance(part, int) else value
    if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
        return _hide(value, message)
    return message


def _known_keys(location: KeyPath, data: Any) -> list[str]:
    """Return the keys that could stand beside the unknown one at the end of ``location``."""
    model: Any = Config
    for depth, part in enumerate(location[:-1]):
        if location[:1] == ("providers",) and part == "settings" and depth == 2:  # noqa: PLR2004 - providers.NAME.settings
            model = _settings_of(data, str(location[1]))
        else:
            model = _inside(model, part)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    names = [field.alias or name for name, field in model.model_fields.items()]
    of_a_provider = len(location) == 4 and _in_file(location) != location  # noqa: PLR2004 - and its unknown key
    return names + (sorted(COMMON_PROVIDER_KEYS) if of_a_provider else [])


def _settings_of(data: Any, provider: str) -> Any:
    try:
        return load_kind(data["providers"][provider]["kind"]).settings
    except (KeyError, TypeError, SetupError):
        return None


def _inside(annotation: Any, part: str | int) -> Any:
    """Return the type of what is at ``part`` of something of type ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = annotation.model_fields.get(str(part))
        return _not_none(known.annotation) if known else None
    if get_origin(annotation) in (dict, list, tuple):
        arguments = [a for a in get_args(annotation) if a is not Ellipsis]
        return _not_none(arguments[-1]) if arguments else None
    return None


def _not_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if len(members) == 1 else None
