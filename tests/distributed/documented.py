"""The keys that docs/state.md promises."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "state.md"

_PARTS = {
    "SUBJECT": r"(route|provider|key|jwt|mtls)/\S+",
    "PERIOD": r"\d{4}-\d\d(-\d\d)?",
    "PROCESS": r"[0-9a-f]{32}",
    "DIGEST": r"([0-9a-f]{32}|[0-9a-f]{64})",
    "KIND": r"(caller|user|route|provider)",
    "WHAT": r"(target|budget)/\S+",
}
"""What stands in capitals for a part of a name; whatever is not here is any name."""

_ANY_NAME = r"[^:{}\s]+"


def documented_keys() -> list[re.Pattern[str]]:
    """Return what each name in the page's table of keys matches."""
    table = _PAGE.read_text().partition("## Keys")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `modelrouter:")]
    return [pattern for row in rows for pattern in _patterns(re.findall(r"`([^`]+)`", row))]


def _patterns(names: list[str]) -> list[re.Pattern[str]]:
    first = names[0]
    # A further name in a row says only what stands in place of the first one's last part.
    whole = [first, *(first.rpartition(":")[0] + name for name in names[1:])]
    return [re.compile(_pattern(name)) for name in whole]


def _pattern(name: str) -> str:
    parts = re.split(r"([A-Z]{2,})", name)
    return "".join(
        _PARTS.get(part, _ANY_NAME) if part.isupper() else re.escape(part) for part in parts if part
    )
