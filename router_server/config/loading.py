"""From a file to a `Config`, or to every mistake that is in it.

Refuses to know any single rule: those are in the tree and in `references`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from router_server.config import references
from router_server.config.problems import ConfigError, Finding, KeyPath, Problem, dotted
from router_server.config.routes import RouteConfig
from router_server.config.section import PARTIAL
from router_server.config.source import Document, UnreadableError, parse
from router_server.config.tree import (
    Config,
    ProviderConfig,
    ServerConfig,
    TargetConfig,
)
from router_server.config.wording import findings, key_path, without_secrets

_ENTRIES: Final[Mapping[str, type[BaseModel]]] = {
    "providers": ProviderConfig,
    "targets": TargetConfig,
    "routes": RouteConfig,
}
"""The sections of named entries."""


def load(path: Path | str, env: Mapping[str, str]) -> Config:
    """Return the configuration that the file says, with the variables of ``env``.

    Raises:
        ConfigError: with every mistake of the file.
    """
    origin = str(path)
    text = _read(Path(path), origin)
    return read(text, env, origin=origin, folder=Path(path).absolute().parent)


def read(text: str, env: Mapping[str, str], *, origin: str, folder: Path | None = None) -> Config:
    """Return the configuration that ``text`` says; relative files in it count from ``folder``.

    Raises:
        ConfigError: with every mistake of the text, under the name ``origin``.
    """
    try:
        document = parse(text, env)
    except UnreadableError as error:
        raise ConfigError(origin, (Problem(error.line, "", error.message),)) from None
    if not isinstance(document.data, dict):
        what = "must be a mapping" if document.data is not None else "is empty"
        raise ConfigError(origin, (Problem(1, "", f"{what}; it needs providers, targets and routes"),))
    config, wrong = _validated(document, {"folder": folder})
    related = [
        replace(finding, message=without_secrets(finding.message, finding.path, document))
        for finding in references.check(config, _names(document.data))
    ]
    found = [finding for finding in (*wrong, *related) if not _follows(finding, document)]
    if found or document.findings:
        raise ConfigError(origin, _problems((*document.findings, *found), document))
    return config


def listening(config: Config, *, listen: str | None = None, http_listen: str | None = None) -> Config:
    """Return ``config`` with other addresses.

    Raises:
        ConfigError: an address that is none, or two that exclude each other.
    """
    given = {"listen": listen, "http_listen": http_listen}
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        server = ServerConfig.model_validate(config.server.model_dump(exclude_unset=True) | changes)
        found = list(references.check_server(server))
    except ValidationError as error:
        found = list(findings(error, Document(changes)))
    if found:
        options = [Problem(0, f"--{str(f.path[-1]).replace('_', '-')}", f.message) for f in found]
        raise ConfigError("command line", tuple(options))
    return config.model_copy(update={"server": server})


def _read(path: Path, origin: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "the path means nothing"
        message = f"cannot be read: {reason}; check the path and its permissions"
        raise ConfigError(origin, (Problem(0, "", message),)) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(origin, (Problem(line, "", "is not UTF-8; save it in that encoding"),)) from None


def _validated(document: Document, context: dict[str, Any]) -> tuple[Config, list[Finding]]:
    """Return the configuration without what is wrong in it, and what that is."""
    try:
        return Config.model_validate(document.data, context=context), []
    except ValidationError as error:
        first = error
    _keep_text_where_text_is_wanted(first, document)
    try:
        return Config.model_validate(document.data, context=context), []
    except ValidationError as error:
        # What is wrong is left out, so that the rest can be checked too.
        rest = _without(document.data, [details["loc"] for details in error.errors(include_url=False)])
        config = Config.model_validate(rest, context={**context, PARTIAL: True})
        return config, list(findings(error, document))


def _follows(finding: Finding, document: Document) -> bool:
    """Tell whether a value that could not be made out is what is wrong, which is reported already."""
    depth = len(finding.path)
    return any(path[:depth] == finding.path for path in document.unknown)


def _keep_text_where_text_is_wanted(error: ValidationError, document: Document) -> None:
    """Undo the typing of variables at keys that want text: a password of digits is no number."""
    for details in error.errors(include_url=False):
        path = key_path(details["loc"], document.data)
        found = document.substituted.get(path)
        if found is None or details["type"] != "string_type" or not found.text:
            continue
        container = document.data
        for part in path[:-1]:
            container = container[part]
        container[path[-1]] = found.text


def _without(data: dict[str, Any], locations: list[KeyPath]) -> dict[str, Any]:
    """Return ``data`` without the keys in which something is wrong, or what cannot be without them."""
    kept = deepcopy(data)
    for section, *path in locations:
        inside = kept.get(str(section))
        if not path or not isinstance(inside, dict):
            kept.pop(str(section), None)
        elif section not in _ENTRIES and _is_optional(str(section)):
            kept.pop(str(section))
        elif section not in _ENTRIES:
            inside.pop(path[0], None)
        elif _can_do_without(_ENTRIES[str(section)], path[1:]):
            inside.get(path[0], {}).pop(path[1], None)
        else:
            inside.pop(path[0], None)
    return kept


def _is_optional(section: str) -> bool:
    field = Config.model_fields.get(section)
    return field is not None and field.default is None


def _can_do_without(entry: type[BaseModel], path: list[str | int]) -> bool:
    if not path or path[0] == "[key]":
        return False
    field = entry.model_fields.get(str(path[0]))
    return field is None or not field.is_required()


def _names(data: dict[str, Any]) -> references.Names:
    """Return what each section declares; None for one that is no mapping, which is reported already."""
    sections = {section: data.get(section, {}) for section in _ENTRIES}
    return {key: frozenset(value) if isinstance(value, dict) else None for key, value in sections.items()}


def _problems(found: Iterable[Finding], document: Document) -> tuple[Problem, ...]:
    problems = [Problem(f.line or document.line(f.path), dotted(f.path), f.message) for f in found]
    return tuple(sorted(problems, key=lambda problem: problem.line))
