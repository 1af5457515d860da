"""What each built-in kind can do, as a Markdown table: the generated part of docs/providers.md.

``python -m router_server.providers.matrix`` prints it, ``--write [FILE]`` puts it below the marker of a
page, ``--check [FILE]`` fails where the page says something else. Kinds of other packages are left out,
so that the page does not depend on what is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from router_server.core.provider import Capability, ProviderKind
from router_server.providers import GROUP, load_kind

_PAGE: Final = Path("docs/providers.md")
_COMMAND: Final = "python -m router_server.providers.matrix --write"
MARKER: Final = f"<!-- generated below this line by: {_COMMAND} -->\n"


class PageError(Exception):
    """A page cannot be read, has no marker, or says something else than the code."""


def render() -> str:
    """Return a line about each kind, and the table of kinds and capabilities."""
    kinds = _built_in()
    lines = [
        "## Kinds",
        "",
        *(f"- `{kind.name}`: {kind.summary}" for kind in kinds),
        "",
        "## Capabilities",
        "",
        _row("", (f"`{kind.name}`" for kind in kinds)),
        _row("---", (":-:" for _ in kinds)),
        *(_row(f"`{c}`", ("yes" if c in kind.capabilities else "" for kind in kinds)) for c in Capability),
    ]
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return ``page`` with what stands below the marker made anew.

    Raises:
        PageError: there is no marker.
    """
    above, marker, _ = page.partition(MARKER)
    if not marker:
        raise PageError(f"has no line {MARKER.strip()}")
    return f"{above}{marker}\n{render()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m router_server.providers.matrix", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    meanings = {"--write": "bring the page up to date", "--check": "fail where it is out of date"}
    for option, meaning in meanings.items():
        what.add_argument(option, type=Path, nargs="?", const=_PAGE, metavar="FILE", help=meaning)
    options = parser.parse_args(arguments)
    try:
        if options.write:
            _write(options.write)
        elif options.check:
            _check(options.check)
        else:
            sys.stdout.write(render())
    except (OSError, PageError) as error:
        sys.stderr.write(f"{options.write or options.check}: {error}\n")
        return 1
    return 0


def _write(page: Path) -> None:
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")


def _check(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if text != updated(text):
        raise PageError(f"is out of date; run: {_COMMAND} {page}")


def _built_in() -> tuple[ProviderKind, ...]:
    ours = {entry.name for entry in entry_points(group=GROUP) if entry.value.startswith("router_server.")}
    return tuple(load_kind(name) for name in sorted(ours))


def _row(head: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((head, *cells))} |"


if __name__ == "__main__":
    sys.exit(main())
