"""Answers of every kind, as one target gives them: text, reasoning, tool calls, structured output, all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelrouter import Answer, json_schema, tool
from tests.faults.wires import Wire, said

_CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
_TOOLS = [tool("weather", parameters=_CITY), tool("time", parameters=_CITY)]


@dataclass(frozen=True)
class Whole:
    """What a caller must have in the end."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> Whole:
        """Return what a caller has."""
        calls = tuple((call.name, call.arguments) for call in answer.tool_calls)
        return cls(answer.text, answer.reasoning, calls)


@dataclass(frozen=True)
class Kind:
    """One kind of answer.

    ``events`` are those of the answer of a target called so, without the last ones that say it is whole;
    ``owed`` is what they make together; ``options`` are the call's.
    """

    name: str
    events: Callable[[Wire, str], list[Any]]
    owed: Callable[[str], Whole]
    options: Mapping[str, Any] = field(default_factory=dict)
    finish: str = "stop"

    def stream(self, wire: Wire, who: str) -> list[Any]:
        """Return the events of the whole answer."""
        return [*self.events(wire, who), *wire.ending(who, 60, finish=self.finish)]


def _text(wire: Wire, who: str) -> list[Any]:
    return [wire.text(word) for word in said(who, 6).words]


def _thoughts(wire: Wire, who: str) -> list[Any]:
    return [wire.thought(f"{who} thinks "), wire.thought("and "), wire.thought("thinks")]


def _arguments(who: str, what: str) -> list[str]:
    text = json.dumps({"city": f"{who} {what}"})
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def _calls(wire: Wire, who: str) -> list[Any]:
    return [
        *wire.tool_call(0, "weather", _arguments(who, "Oslo")),
        *wire.tool_call(1, "time", _arguments(who, "Rome")),
    ]


def _owed_calls(who: str) -> tuple[tuple[str, Any], ...]:
    return (("weather", {"city": f"{who} Oslo"}), ("time", {"city": f"{who} Rome"}))


def _owed_thoughts(who: str) -> str:
    return f"{who} thinks and thinks"


KINDS = (
    Kind("text", _text, lambda who: Whole(said(who, 6).text)),
    Kind("tool calls", _calls, lambda who: Whole(calls=_owed_calls(who)), {"tools": _TOOLS}, "tool_calls"),
    Kind(
        "reasoning",
        lambda wire, who: _thoughts(wire, who) + _text(wire, who),
        lambda who: Whole(said(who, 6).text, _owed_thoughts(who)),
    ),
    Kind(
        "structured output",
        lambda wire, who: [wire.text(piece) for piece in _arguments(who, "Oslo")],
        lambda who: Whole("".join(_arguments(who, "Oslo"))),
        {"response_format": json_schema("place", _CITY)},
    ),
    Kind(
        "all together",
        lambda wire, who: _thoughts(wire, who) + _text(wire, who) + _calls(wire, who),
        lambda who: Whole(said(who, 6).text, _owed_thoughts(who), _owed_calls(who)),
        {"tools": _TOOLS},
        "tool_calls",
    ),
)
