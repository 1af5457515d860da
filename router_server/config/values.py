"""The kinds of value that a configuration holds: names, durations, addresses, files.

Each says what is wrong with a value without repeating it, since it may have come from a secret. Refuses to
know which key uses it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from router_server.core.duration import parse_duration
from router_server.core.hedge import Percentile

_NAME = re.compile(r"[^\s/]{1,128}")
_ROUTE_NAME = re.compile(r"\S{1,128}")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})", re.ASCII)
_HIGHEST_PORT = 65_535


def _duration(value: Any) -> float:
    if not isinstance(value, str | int | float):
        raise ValueError("is not a duration; write 500ms, 5s, 2m or 1h30m")  # noqa: TRY004 - pydantic reports ValueError
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError("is not a duration; write 500ms, 5s, 2m or 1h30m") from None


def _patience(value: Any) -> Percentile | float:
    if isinstance(value, str) and value in set(Percentile):
        return Percentile(value)
    try:
        seconds = _duration(value)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ValueError("is neither a percentile nor a duration; write p50, p90, p95, p99, 500ms or 2s")
    return seconds


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or not text.isprintable():
        raise ValueError("is not a name; use 1 to 128 characters without spaces or slashes")
    return text


def _route_name(text: str) -> str:
    if not _ROUTE_NAME.fullmatch(text) or not text.isprintable():
        raise ValueError("is not a route's name; use 1 to 128 characters without spaces")
    return text


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return the parts of ``host:port``, without the brackets of IPv6, or None where it is not that."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        return None
    return match["host"].strip("[]"), int(match["port"])


def _tcp_address(value: Any) -> str:
    if isinstance(value, str) and host_and_port(value):
        return value
    raise ValueError("is not an address; write host:port, for example 127.0.0.1:8080 or [::1]:8080")


def _listen_address(value: Any) -> str:
    if isinstance(value, str) and (host_and_port(value) or _is_socket(value)):
        return value
    raise ValueError(
        "is not an address; write host:port, for example 127.0.0.1:50051 or [::1]:50051, or unix:/path"
    )


def _is_socket(address: str) -> bool:
    return address.startswith("unix:/") and len(address) > len("unix:/")


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """Return a path; a relative one counts from the folder of the configuration file."""
    folder = (info.context or {}).get("folder")
    return Path(folder, path) if folder else path


def _belonging(value: Any) -> str:
    kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if value == "user_id" or (kind == "label" and name):
        return str(value)
    raise ValueError("must be user_id, or label:NAME for the label NAME of a call")


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds, at least 0; written as ``500ms``, ``5s``, ``1h30m`` or a bare number."""

Timeout = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
"""A duration that is not 0."""

Patience = Annotated[Percentile | float, BeforeValidator(_patience)]
"""``p50``, ``p90``, ``p95`` or ``p99`` of what was measured, or a duration that is not 0."""

Name = Annotated[str, AfterValidator(_name)]
"""What a provider is called; no slash, since callers may write provider/model."""

RouteName = Annotated[str, AfterValidator(_route_name)]
"""What a target or a route is called; slashes are fine, model names have them."""

TcpAddress = Annotated[str, BeforeValidator(_tcp_address)]
"""``host:port``."""

ListenAddress = Annotated[str, BeforeValidator(_listen_address)]
"""``host:port`` or ``unix:/path``."""

File = Annotated[Path, AfterValidator(from_folder)]
"""A path; a relative one counts from the folder of the configuration file."""

Count = Annotated[int, Field(ge=1)]
"""A whole number, at least 1."""

Share = Annotated[float, Field(gt=0, le=1)]
"""A part of a whole, more than 0 and at most 1."""

Belonging = Annotated[str, BeforeValidator(_belonging)]
"""``user_id`` or ``label:NAME``: what in a call says which calls belong together."""
