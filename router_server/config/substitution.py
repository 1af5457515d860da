"""Environment variables in a value: ``${NAME}``, ``${NAME:-default}``, and ``$${`` for a literal ``${``.

Refuses to know where the value stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_PATTERN = re.compile(
    r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Substitution:
    """A value in which variables stood.

    Attributes:
        text: the value with the variables in place.
        raw: the value as the file has it, which is safe to show.
        whole: it was one variable and nothing else.
        secrets: what the variables held.
        mistakes: unset variables, and what only looks like one.
    """

    text: str = field(repr=False)
    raw: str
    whole: bool
    secrets: tuple[str, ...] = field(repr=False)
    mistakes: tuple[str, ...]


def substitute(raw: str, env: Mapping[str, str]) -> Substitution | None:
    """Return ``raw`` with the variables of ``env`` in place, or None where there are none to place."""
    if "${" not in raw:
        return None
    secrets: list[str] = []
    mistakes: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0] == "$${":
            return "${"
        if name is None:
            mistakes.append(
                "has a ${ that begins no variable; write ${NAME}, ${NAME:-default}, or $${ for ${"
            )
            return ""
        if env.get(name) or (name in env and default is None):
            secrets.append(env[name])
            return env[name]
        if default is None:
            mistakes.append(f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return default or ""

    text = _PATTERN.sub(value, raw)
    match = _PATTERN.fullmatch(raw)
    whole = match is not None and match["name"] is not None
    return Substitution(text, raw, whole, tuple(filter(None, secrets)), tuple(mistakes))
