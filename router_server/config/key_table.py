"""Every key with its default and its meaning, as Markdown: the generated part of docs/configuration.md.

``python -m router_server.config.key_table docs/configuration.md`` brings the page up to date. Kinds of other
packages are left out, so that the page does not depend on what is installed.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from router_server.config.tree import Config
from router_server.config.values import Duration, Timeout
from router_server.providers import GROUP, load_kind
from router_server.providers._settings import Seconds

MARKER: Final = "<!-- generated below this line by: python -m router_server.config.key_table -->\n"

_HEAD: Final = ("| key | default | meaning |", "|---|---|---|")
_REQUIRED: Final = "required"
_DURATIONS: Final = frozenset(get_args(alias)[1] for alias in (Duration, Timeout, Seconds))
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def updated(page: str) -> str:
    """Return ``page`` with what stands below the marker made anew.

    Raises:
        ValueError: there is no marker.
    """
    above, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"the page has no line {MARKER.strip()}")
    return f"{above}{marker}\n{render()}"


def render() -> str:
    """Return a table of the common keys, and one for each built-in kind of provider."""
    lines = ["## Every key", "", *_HEAD, *_rows(Config, "", set())]
    ours = {entry.name for entry in entry_points(group=GROUP) if entry.value.startswith("router_server.")}
    for name in sorted(ours):
        lines += ["", f"### Keys of a provider of kind `{name}`", "", *_HEAD]
        lines += _rows_of_kind(load_kind(name).settings)
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str, seen: set[type[BaseModel]]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = _section(field.annotation)
        if field.exclude:
            continue
        if get_origin(field.annotation) is dict and inner:
            yield from _rows(inner, f"{key}.NAME.", seen)
            continue
        if get_origin(field.annotation) is tuple and inner:
            yield _row(key, _default(field), field.description or "")
            yield from _rows(inner, f"{key}[].", seen)
            continue
        if inner is None or inner in seen or field.get_default(call_default_factory=True) is None:
            yield _row(key, _default(field), field.description or "")
        elif type(None) in get_args(field.annotation):
            yield _row(key, "as below", field.description or "")
        if inner and inner not in seen:
            seen.add(inner)
            yield from _rows(inner, f"{key}.", seen)


def _rows_of_kind(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    meanings = dict(_ATTRIBUTE.findall(inspect.getdoc(settings) or ""))
    for name, field in settings.model_fields.items():
        inner = _section(field.annotation)
        if inner is None or not _is_section(field):
            meaning = " ".join((field.description or meanings.get(name, "")).split())
            yield _row(f"{prefix}{name}", _default(field), meaning.replace("``", "`").removesuffix("."))
        if inner is not None and get_origin(field.annotation) is not tuple:
            yield from _rows_of_kind(inner, f"{prefix}{name}.")


def _is_section(field: FieldInfo) -> bool:
    """Tell whether a key holds a section in any case, so that the keys in it say all."""
    return not field.is_required() and isinstance(field.get_default(call_default_factory=True), BaseModel)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation: itself, optional, or the values of a mapping."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _REQUIRED
    if field.default_factory is not None and field.annotation is not None and not _is_container(field):
        return "from the environment"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, bool) or value is None:
        return f"`{ {True: 'true', False: 'false', None: 'null'}[value] }`"
    if _is_duration(field):
        return f"`{value:g}s`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _is_duration(field: FieldInfo) -> bool:
    """Tell whether the value is seconds; of one that may be null, the member of the union says so."""
    members = (getattr(member, "__metadata__", ()) for member in get_args(field.annotation))
    return not _DURATIONS.isdisjoint(chain(field.metadata, *members))


def _is_container(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (dict, list, tuple) or _section(field.annotation) is not None


def _row(key: str, default: str, meaning: str) -> str:
    return f"| `{key}` | {default} | {meaning.replace('|', chr(92) + '|')} |"


def main() -> int:
    """Bring the page named on the command line up to date."""
    parser = argparse.ArgumentParser(prog="python -m router_server.config.key_table", description=__doc__)
    parser.add_argument("page", type=Path, metavar="FILE")
    page = parser.parse_args().page
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
