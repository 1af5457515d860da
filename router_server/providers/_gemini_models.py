"""What a Gemini model's name tells: its path, how it is told to think, whether it insists on signatures.

Refuses to know requests. The facts are those of Google's pages "Gemini thinking", "OpenAI compatibility"
and "Thought signatures". A name without a version (``gemini-flash-latest``) counts as the newest generation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.types import ReasoningEffort

_VERSION: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")

_FIRST_WITH_LEVELS: Final = (3, 0)
"""From Gemini 3 on thinking has levels, and function calls need their signatures; before, a budget."""

_BUDGETS: Final[Mapping[ReasoningEffort, int]] = {
    ReasoningEffort.MINIMAL: 1024,
    ReasoningEffort.LOW: 1024,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 24576,
}
"""Tokens, as Google's own OpenAI-compatible door maps ``reasoning_effort``."""

_SMALLEST_PRO_BUDGET: Final = 128
"""Gemini 2.5 Pro cannot stop thinking; Flash and Flash-Lite can, with a budget of 0."""

_LEVELS: Final[Mapping[ReasoningEffort, str]] = {
    ReasoningEffort.LOW: "LOW",
    ReasoningEffort.MEDIUM: "MEDIUM",
    ReasoningEffort.HIGH: "HIGH",
}

_FIRST_FLASH_WITHOUT_MINIMAL: Final = (3, 7)
"""LOW is the least that Gemini 3.7 Flash and later ones take, as every Pro does."""


def model_path(model: str) -> str:
    """Return the path of ``model``, which may be a resource name with slashes (``tunedModels/mine``).

    Raises:
        UpstreamError: INVALID_REQUEST where the name would lead elsewhere.
    """
    return "/" + quote(resource_name(model), safe="/")


def resource_name(model: str) -> str:
    """Return the name of ``model`` as the API writes it: ``models/…`` where no collection is named.

    Raises:
        UpstreamError: as `model_path`.
    """
    name = model if "/" in model else f"models/{model}"
    if any(segment in ("", ".", "..") for segment in name.split("/")):
        raise UpstreamError(Outcome.INVALID_REQUEST, "invalid_model_name")
    return name


def insists_on_signatures(model: str) -> bool:
    """Tell whether the model refuses a history whose function calls lack their thought signature."""
    return "gemini" in model and has_levels(model)


def has_levels(model: str) -> bool:
    """Tell whether the model belongs to Gemini 3 or a later generation."""
    version = _version(model)
    return version is None or version >= _FIRST_WITH_LEVELS


def thinking_config(model: str, effort: ReasoningEffort) -> dict[str, Any]:
    """Return the ``thinkingConfig`` that asks ``model`` for ``effort``; NONE is the least that it offers."""
    shown = effort is not ReasoningEffort.NONE
    if has_levels(model):
        return {"thinkingLevel": _LEVELS.get(effort) or _lowest_level(model), "includeThoughts": shown}
    return {"thinkingBudget": _BUDGETS.get(effort, _smallest_budget(model)), "includeThoughts": shown}


def _lowest_level(model: str) -> str:
    version = _version(model)
    knows_minimal = "flash" in model and version is not None and version < _FIRST_FLASH_WITHOUT_MINIMAL
    return "MINIMAL" if knows_minimal else "LOW"


def _smallest_budget(model: str) -> int:
    return _SMALLEST_PRO_BUDGET if "pro" in model else 0


def _version(model: str) -> tuple[int, int] | None:
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None
