"""Reading a YAML file without losing where things stood: values, and the line of every key path.

Substitutes ``${NAME}`` after parsing and in values alone, so that no value can change a file's structure.
Refuses to know what any key means.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from router_server.config.problems import Finding, KeyPath
from router_server.config.substitution import Substitution, substitute
from router_server.config.yaml_core import MERGE, TYPED, compose, typed

_MOST_VALUES: Final = 100_000
"""Aliases can make a small file mean a huge one; no honest configuration comes near."""


class UnreadableError(Exception):
    """The text is no YAML document that could be looked into; holds the line and what is wrong."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(slots=True)
class Document:
    """A file's values, where they stood, and what was wrong with them already.

    Attributes:
        data: plain dicts, lists and scalars.
        lines: the line of every key path, counted from 1.
        findings: duplicate keys, unset variables, tags and the like.
        substituted: the path of every value that a variable took part in.
        unknown: the path of every value that could not be made out, which is among the findings.
    """

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    substituted: dict[KeyPath, Substitution] = field(default_factory=dict)
    unknown: set[KeyPath] = field(default_factory=set)

    def line(self, path: KeyPath) -> int:
        """Return the line of ``path``, or of the nearest part above it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str, env: Mapping[str, str]) -> Document:
    """Return what ``text`` says, with the variables of ``env`` in place.

    Raises:
        UnreadableError: bad syntax, or nested or repeated beyond all measure.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n")]
    try:
        node = compose(text)
        return _Reading(starts, env).document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unreadable(starts, mark.index if mark else 0, _syntax(error.problem)) from None
    except yaml.reader.ReaderError as error:
        what = f"the character U+{error.character:04X} is not allowed here; remove it"
        raise _unreadable(starts, error.position, what) from None
    except RecursionError:
        raise UnreadableError(0, "is nested too deeply; no configuration needs that") from None
    except (ValueError, OverflowError):
        # PyYAML hands an escape beyond Unicode, "\UFFFFFFFF", to chr.
        raise UnreadableError(0, "holds an escape or a number that means nothing; correct it") from None


def _unreadable(starts: list[int], index: int, what: str) -> UnreadableError:
    line = bisect_right(starts, index)
    return UnreadableError(line, f"column {index - starts[line - 1] + 1}: {what}")


def _syntax(problem: str | None) -> str:
    if problem is None:
        return "is not YAML; check indentation, colons and quotes"
    if "alias" in problem:
        return "no anchor (&name) declares this alias (*name); quote a value that begins with *"
    if "but found another document" in problem:
        return "a second document begins; a configuration is one, remove the line ---"
    if "tag" in problem or "anchor" in problem:
        return "the tag (!) or anchor (&) is not valid; quote a value that begins with it"
    return f"is not YAML: {problem}; check indentation, colons and quotes around here"


class _Reading:
    """One walk over a composed tree."""

    def __init__(self, starts: list[int], env: Mapping[str, str]) -> None:
        self._starts = starts
        self._env = env
        self._open: set[int] = set()
        self._values = 0
        self._result = Document()

    def document(self, node: yaml.Node | None) -> Document:
        if node is not None:
            self._result.lines[()] = self._line(node)
            self._result.data = self._value(node, ())
        return self._result

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count(node)
        if node.tag not in TYPED:
            return self._give_up(path, "has a YAML tag; only plain values are read, remove the tag")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        with self._entered(node, path) as is_new:
            if not is_new:
                return None
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return self._sequence(node, path)

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        for index, item in enumerate(node.value):
            self._result.lines[(*path, index)] = self._line(item)
            items.append(self._value(item, (*path, index)))
        return items

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, (key, value) in self._pairs(node, path).items():
            self._result.lines[(*path, name)] = self._line(key)
            values[name] = self._value(value, (*path, name))
        return values

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping's keys and values, then those it merges in that it does not have itself."""
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            self._count(key)
            if key.tag == MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = self._key(key, path)
            if name in pairs:
                first = self._line(pairs[name][0])
                self._complain((*path, name), f"is in line {first} already; keep one of the two", key)
            elif name is not None:
                pairs[name] = (key, value)
        for source in merged:
            for name, pair in self._merged(source, path).items():
                pairs.setdefault(name, pair)
        return pairs

    def _merged(self, node: yaml.Node, path: KeyPath) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._complain(path, "merges (<<) something that is no mapping; merge aliases of mappings", node)
            return {}
        with self._entered(node, path) as is_new:
            return self._pairs(node, path) if is_new else {}

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in TYPED and _is_text(node.value):
            return str(node.value)
        self._complain(path, "has a key that is no text; write name: value", node)
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if not _is_text(node.value):
            return self._give_up(path, "holds half of a character; write the character itself")
        found = substitute(node.value, self._env)
        if found is None:
            return typed(node.value, node.tag)
        self._result.substituted[path] = found
        for message in found.mistakes:
            self._give_up(path, message)
        return typed(found.text) if found.whole and node.style is None else found.text

    @contextmanager
    def _entered(self, node: yaml.Node, path: KeyPath) -> Iterator[bool]:
        if id(node) in self._open:
            self._give_up(path, "contains itself through an alias; write it out")
            yield False
            return
        self._open.add(id(node))
        yield True
        self._open.remove(id(node))

    def _count(self, node: yaml.Node) -> None:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise UnreadableError(
                self._line(node), f"means more than {_MOST_VALUES} values; repeat fewer aliases"
            )

    def _give_up(self, path: KeyPath, message: str) -> None:
        self._result.unknown.add(path)
        self._result.findings.append(Finding(path, message))

    def _complain(self, path: KeyPath, message: str, node: yaml.Node) -> None:
        self._result.findings.append(Finding(path, message, self._line(node)))

    def _line(self, node: yaml.Node) -> int:
        # Not the mark's own line: YAML counts line separators that no editor does.
        return bisect_right(self._starts, node.start_mark.index)


def _is_text(value: str) -> bool:
    """Tell whether it can be encoded: an escape of a surrogate makes half a character."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
