"""The YAML reader: values, the line of every key path, and nothing but findings for bad text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_server.config import ConfigError, read
from router_server.config.problems import KeyPath
from router_server.config.source import UnreadableError, parse
from tests.config.reading import VALID, only_mistake


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("5", 5),
        ("-7", -7),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("12:30", "12:30"),
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("2024-07-18", "2024-07-18"),
        ("1_000", "1_000"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!int five", "five"),
        ("9" * 5000, "9" * 5000),
        ("[1, two]", [1, "two"]),
        ("{1: a, null: b, on: c}", {"1": "a", "null": "b", "on": "c"}),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text: str, value: Any) -> None:
    document = parse(f"key: {text}", {})
    assert document.findings == []
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)


def test_every_key_path_has_its_line() -> None:
    document = parse("# top\na:\n  b: 1\n  c: [x,\n    y]\nd: {e: {f: 2}}\n", {})
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("d",): 6,
        ("d", "e"): 6,
        ("d", "e", "f"): 6,
    }
    assert document.line(("a", "missing", "deeper")) == 2


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_an_editor(newline: str) -> None:
    text = newline.join(["a: 'x\u2028y\x85'", "b: 1", ""])
    assert parse(text, {}).lines[("b",)] == 2


def test_anchors_and_merge_keys_give_values_and_the_lines_of_where_they_were_written() -> None:
    text = """\
base: &base
  connect: 1s
  idle: 2s
more: &more {unary: 9s}
one:
  <<: [*base, *more]
  idle: 3s
two: *base
"""
    document = parse(text, {})
    assert document.data["one"] == {"idle": "3s", "connect": "1s", "unary": "9s"}
    assert document.data["two"] == {"connect": "1s", "idle": "2s"}
    assert document.lines[("one", "connect")] == 2
    assert document.lines[("one", "idle")] == 7
    assert document.findings == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "line 1 already"),
        ("a: 1\nb: !!python/object/apply:os.system [true]", 2, "tag"),
        ("a: 1\nb: !secret x", 2, "tag"),
        ("a: &a\n  b: *a", 2, "contains itself"),
        ("a: &a\n  <<: *a\n  b: 1", 1, "contains itself"),
        ("a:\n  <<: 5", 2, "no mapping"),
        ("a: 1\n? [x, y]\n: 2", 2, "no text"),
        ('a: 1\nb: "\\ud800"', 2, "half of a character"),
    ],
)
def test_what_cannot_be_read_as_plain_values_is_a_finding(text: str, line: int, words: str) -> None:
    document = parse(text, {})
    (finding,) = document.findings
    assert (finding.line or document.line(finding.path)) == line
    assert words in finding.message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2", 2, "column 9"),
        ("a: 1\n\tb: 2", 2, "column 1"),
        ("a: 1\nb: @x", 2, "column 4"),
        ("a: 1\nb: *nowhere", 2, "no anchor"),
        ("a: 1\nb: x: y", 2, "column 5"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ('a: "\\UFFFFFFFF"', 0, "escape"),
        ("[" * 5000, 0, "too deeply"),
    ],
)
def test_what_is_not_yaml_has_its_line_and_column(text: str, line: int, words: str) -> None:
    with pytest.raises(UnreadableError) as raised:
        parse(text, {})
    assert raised.value.line == line
    assert words in raised.value.message


def test_a_syntax_error_never_shows_what_stands_there() -> None:
    with pytest.raises(UnreadableError) as raised:
        parse("api_key: *sk-very-secret", {})
    assert "sk-very" not in raised.value.message


@pytest.mark.parametrize(
    "last",
    ["x: [*i, *i]", "x: {<<: [*i, *i]}"],
)
def test_a_small_file_cannot_mean_a_huge_one(last: str) -> None:
    lines = ["a: &a {k: 1}"]
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        body = f"[{', '.join([f'*{before}'] * 9)}]"
        lines.append(f"{after}: &{after} {body if '<<' not in last else '{<<: ' + body + '}'}")
    with pytest.raises(UnreadableError, match="more than 100000 values"):
        parse("\n".join([*lines, last]), {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_one_mistake(text: str) -> None:
    assert "is empty; it needs providers" in only_mistake(text).message


@pytest.mark.parametrize("text", ["[a]", "text", "5"])
def test_a_file_that_is_no_mapping_is_one_mistake(text: str) -> None:
    assert "must be a mapping" in only_mistake(text).message


FRAGMENTS = st.sampled_from(
    [
        *VALID.splitlines(keepends=True),
        *(
            "server:\n",
            "  tls: {cert: a, key: b}\n",
            "  workers: ",
            "  listen: ",
            "${A}",
            "${B:-1}",
            "${",
            "$${",
        ),
        *(
            "  ",
            "\n",
            "- ",
            ": ",
            "[",
            "]",
            "{",
            "}",
            "&a ",
            "*a",
            "<<: ",
            "!!str ",
            "!x ",
            "'",
            '"',
            "|\n",
            ">",
        ),
        *(
            "null",
            "5s",
            "0",
            "-1",
            "1e999",
            ".nan",
            "true",
            "\t",
            "#",
            "? ",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "\\",
        ),
        *(
            "targets:\n",
            "routes:\n",
            "telemetry: ",
            "kind: static",
            "settings: ",
            "capabilities: {",
            "@",
            "\x85",
        ),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(FRAGMENTS, max_size=25).map("".join)))
@example('%YAML 1.999999999999999999999999\n---\na: "\\U00110000"')
@example("providers: {m: {kind: mock, settings: {}}}")
@example("? &a [*a]\n: b")
@example("a: " + "1" * 5000)
def test_any_text_gives_a_configuration_or_its_mistakes(text: str) -> None:
    error = error_of(text)
    if error is None:
        return
    last = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    assert all(0 <= problem.line <= last and problem.message for problem in error.problems)
    assert len(str(error).splitlines()) == len(error.problems) > 0
    assert str(error).encode()


def error_of(text: str) -> ConfigError | None:
    try:
        read(text, {"A": "5"}, origin="any.yaml")
    except ConfigError as error:
        return error
    return None


@dataclass
class Written:
    """A file as it grows, with the line on which each key path was put."""

    lines: list[str] = field(default_factory=list)
    places: dict[KeyPath, int] = field(default_factory=dict)

    def put(self, path: KeyPath, text: str) -> None:
        self.lines.append(text)
        self.places[path] = len(self.lines)

    def tree(self, tree: dict[str, Any], path: KeyPath = ()) -> None:
        indent = "  " * len(path)
        for key, (noise, value) in tree.items():
            self.lines.extend(f"{indent}# {text}" if text else "" for text in noise)
            here = (*path, key)
            if isinstance(value, dict):
                self.put(here, f"{indent}{key}:")
                self.tree(value, here)
            elif isinstance(value, list):
                self.put(here, f"{indent}{key}:")
                for index, item in enumerate(value):
                    self.put((*here, index), f"{indent}  - {item}")
            else:
                self.put(here, f"{indent}{key}: '{value}'")


KEYS = st.text("abcdefgh", min_size=1, max_size=3)
NOISE = st.lists(st.text("abc é", max_size=5).map(str.strip), max_size=3)
# U+2028 is a line break to YAML, and none to an editor.
LEAVES = st.one_of(st.text("xyzü\u2028", max_size=4), st.lists(st.integers(0, 9), min_size=1, max_size=3))
TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(KEYS, st.tuples(NOISE, LEAVES), min_size=1, max_size=3),
    lambda inner: st.dictionaries(KEYS, st.tuples(NOISE, inner), min_size=1, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_the_line_of_a_key_path_is_where_it_was_written(tree: dict[str, Any]) -> None:
    written = Written()
    written.tree(tree)
    document = parse("\n".join(written.lines), {})
    assert {path: line for path, line in document.lines.items() if path} == written.places
