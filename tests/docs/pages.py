"""The documentation as tests read it: pages, their code blocks and their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_RULER = re.compile(r"\|[-:|]+\|")
_CELLS = re.compile(r"(?<!\\)\|")


def written() -> list[Path]:
    """Every page that people write here."""
    others = [ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("clients/*/README.md"))]
    return [README, *sorted(DOCS.glob("*.md")), *others]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its text as it stands."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.splitlines()[0]}"


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of one language, in order."""
    found = [Block(page, *match.groups()) for match in _FENCE.finditer(page.read_text())]
    return [block for block in found if block.language == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def table(page: Path, first_column: str) -> list[dict[str, str]]:
    """The rows of the table whose first column has that heading, by heading; backticks are taken away."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if _cells(line)[:1] == [first_column])
    assert _RULER.fullmatch(lines[start + 1])
    headings = _cells(lines[start])
    return [dict(zip(headings, _cells(line), strict=True)) for line in _rows(lines[start + 2 :])]


def _rows(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in _CELLS.split(line)[1:-1]]
