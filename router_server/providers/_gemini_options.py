"""The caller's provider options become part of a Gemini request, but for those that the router sets itself.

An option has the name and the shape of a request field (``safetySettings``, ``generationConfig``). Objects
are merged with what is there, and the caller's values win; ``tools`` are added to those of the request.
Google's JSON takes every name in camelCase and in snake_case, so both spellings count as one here: an
option cannot slip through in the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from router_server.core.errors import Outcome, UpstreamError
from router_server.core.options import refused_options
from router_server.core.types import Json

_REFUSED: Final = frozenset({"model", "contents", "content", "requests", "systemInstruction"})
_REFUSED_IN_CONFIG: Final = frozenset({"candidateCount", "maxOutputTokens"})
_CONFIG: Final = "generationConfig"

_UNDERSCORE: Final = re.compile(r"_([a-z0-9])")


def merge_options(body: dict[str, Any], options: Json) -> None:
    """Merge ``options`` into ``body``.

    Raises:
        UpstreamError: INVALID_REQUEST, ``provider_option_refused`` or ``provider_option_malformed``.
    """
    if not options:
        return
    named = _renamed(options)
    if refused_options(options) or refused_options(named) or _REFUSED.intersection(named):
        raise _refused()
    config = named.get(_CONFIG, {})
    if not isinstance(config, Mapping):
        raise _malformed()
    if _REFUSED_IN_CONFIG.intersection(_renamed(config)):
        raise _refused()
    body.setdefault(_CONFIG, {})
    tools = named.pop("tools", None)
    if tools is not None:
        _add_tools(body, tools)
    _merge(body, named)
    if not body[_CONFIG]:
        del body[_CONFIG]


def _add_tools(body: dict[str, Any], tools: Any) -> None:
    if not isinstance(tools, list):
        raise _malformed()
    body["tools"] = [*body.get("tools", ()), *tools]


def _merge(ours: dict[str, Any], theirs: Json) -> None:
    for name, value in _renamed(theirs).items():
        here = ours.get(name)
        if isinstance(here, dict) and isinstance(value, Mapping):
            _merge(here, value)
        else:
            ours[name] = value


def _renamed(options: Json) -> dict[str, Any]:
    return {_UNDERSCORE.sub(lambda found: found[1].upper(), name): value for name, value in options.items()}


def _refused() -> UpstreamError:
    return UpstreamError(Outcome.INVALID_REQUEST, "provider_option_refused")


def _malformed() -> UpstreamError:
    return UpstreamError(Outcome.INVALID_REQUEST, "provider_option_malformed")
