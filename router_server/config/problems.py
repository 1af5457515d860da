"""What is wrong with a configuration, and where: all of it at once.

Refuses to know how a mistake is found.
"""

from __future__ import annotations

from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""The keys and list indices from the top of a file to a value."""


def dotted(path: KeyPath) -> str:
    """Return ``routes.chat.targets[1]`` for ``("routes", "chat", "targets", 1)``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{shown(part)}"
    return text.removeprefix(".")


def shown(name: str) -> str:
    """Return ``name``, quoted where it would break a line or control a terminal."""
    return name if name.isprintable() else repr(name)


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake at a key path; ``line`` where it is not the line of that path."""

    path: KeyPath
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake as its author can find it.

    Attributes:
        line: counted from 1; 0 where no line is to blame.
        key: dotted; empty where no key is to blame.
        message: what is wrong and what to do; never a secret.
    """

    line: int
    key: str
    message: str


class ConfigError(Exception):
    """A configuration cannot be used.

    Attributes:
        origin: the file's name as it was given, or what stands for a file.
        problems: every mistake, in the order of lines; never empty.
    """

    def __init__(self, origin: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(origin, problems)
        self.origin = origin
        self.problems = problems

    def __str__(self) -> str:
        """One line for each mistake: ``file:line: key.path: what is wrong; what to do``."""
        return "\n".join(_line(self.origin, problem) for problem in self.problems)


def _line(origin: str, problem: Problem) -> str:
    place = f"{origin}:{problem.line}" if problem.line else origin
    return ": ".join(part for part in (place, problem.key, problem.message) if part)
