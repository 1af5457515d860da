"""YAML as people expect it: the core schema of version 1.2, composed but not constructed.

PyYAML's own schema is that of 1.1, in which ``no`` is false, ``12:30`` is 750 and ``2024-07-18`` is a date.
No tag ever creates an object. Refuses to know keys and lines: the nodes carry them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from yaml import Node, ScalarNode
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

_PREFIX: Final = "tag:yaml.org,2002:"
NULL: Final = _PREFIX + "null"
BOOL: Final = _PREFIX + "bool"
INT: Final = _PREFIX + "int"
FLOAT: Final = _PREFIX + "float"
STR: Final = _PREFIX + "str"
MERGE: Final = _PREFIX + "merge"
TYPED: Final = frozenset({NULL, BOOL, INT, FLOAT, STR, MERGE, _PREFIX + "map", _PREFIX + "seq"})
"""Every tag that a value may have."""

_LONGEST_INT: Final = 20
"""Digits: Python refuses to read 5,000 of them, and nothing here counts so far."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _CoreSchema(BaseResolver):
    def resolve(self, kind: type[Node], value: str, implicit: tuple[bool, bool]) -> str:
        """Return the tag of a node that has none of its own."""
        if kind is ScalarNode and implicit[0]:
            return MERGE if value == "<<" else _tag_of(value)
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


class _Loader(Reader, Scanner, Parser, Composer, _CoreSchema):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreSchema.__init__(self)


def compose(text: str) -> Node | None:
    """Return the tree of the only document, or None where the text has none.

    Raises:
        yaml.YAMLError: bad syntax.
        ValueError, OverflowError: an escape beyond Unicode.
        RecursionError: nested too deeply.
    """
    return _Loader(text).get_single_node()


def typed(text: str, tag: str | None = None) -> Any:
    """Return what ``text`` means under ``tag``, or as a plain scalar where there is none.

    Text that its tag cannot mean stays text: the key that it stands at says what it wants.
    """
    tag = tag or _tag_of(text)
    if tag == NULL:
        return None
    if tag == BOOL and _BOOL.fullmatch(text):
        return text.lower() == "true"
    if tag == INT and _INT.fullmatch(text) and len(text) <= _LONGEST_INT:
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if tag == FLOAT and _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _tag_of(text: str) -> str:
    for tag, pattern in ((NULL, _NULL), (BOOL, _BOOL), (INT, _INT), (FLOAT, _FLOAT)):
        if pattern.fullmatch(text):
            return tag
    return STR
