"""Words for whoever started the command: coloured on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from router_server.commands.exits import Exit
from router_server.config import ConfigError


def say(text: str, style: str | None = None) -> None:
    """Print to standard output."""
    _print(text, sys.stdout, style)


def warn(warnings: Sequence[str]) -> None:
    """Print warnings, which end nothing."""
    for warning in warnings:
        _print(f"warning: {warning}", sys.stderr, "yellow")


def fail(message: str, code: Exit) -> Exit:
    """Print why the command failed, and return ``code``."""
    _print(f"router-server: {message}", sys.stderr, "red")
    return code


def name_mistakes(error: ConfigError) -> Exit:
    """Print every mistake of a configuration, one line each."""
    _print(str(error), sys.stderr, "red")
    count = len(error.problems)
    _print(f"{count} mistake{'s' if count > 1 else ''}.", sys.stderr)
    return Exit.CONFIGURATION


def _print(text: str, stream: TextIO, style: str | None = None) -> None:
    # A file's name may hold bytes that no encoding can show.
    shown = text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    if not stream.isatty():
        print(shown, file=stream, flush=True)
        return
    from rich.console import Console  # noqa: PLC0415 - 40 ms that a container, which has no terminal, can spare

    Console(file=stream, emoji=False).print(shown, style=style, markup=False, highlight=False, soft_wrap=True)
