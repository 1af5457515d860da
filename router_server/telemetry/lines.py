"""What one line of the log says, and how it looks: as JSON, or coloured on a terminal.

Refuses to know where lines come from and where they go.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec

from router_server.core.record import Record, field, replace
from router_server.telemetry.redaction import PROCESS_SECRETS, Secrets

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_ENCODER: Final = msgspec.json.Encoder()

_MILLISECONDS: Final = [f".{number:03d}Z" for number in range(1000)]
"""To format one takes half of what a time of day takes."""

_STYLES: Final = {
    logging.DEBUG: "dim",
    logging.INFO: "green",
    logging.WARNING: "yellow",
    logging.ERROR: "bold red",
    logging.CRITICAL: "bold white on red",
}


class Line(Record, frozen=True, gc=True):
    """One line. ``created`` is in seconds since the epoch, ``level`` one of `logging`."""

    created: float
    level: int
    logger: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""
    exc_info: ExcInfo | None = None
    exception: str = ""
    stack: str = ""


def redacted(line: Line, secrets: Secrets = PROCESS_SECRETS) -> Line:
    """Return ``line`` without credentials, its exception as text."""
    line = _with_exception(line)
    return replace(
        line,
        message=secrets.redact(line.message),
        fields=secrets.clean(line.fields),
        exception=secrets.redact(line.exception),
        stack=secrets.redact(line.stack),
    )


def _with_exception(line: Line) -> Line:
    if not line.exc_info:
        return line
    text = "".join(traceback.format_exception(*line.exc_info)).rstrip()
    return replace(line, exception=text, exc_info=None)


def json_line(line: Line, secrets: Secrets = PROCESS_SECRETS) -> str:
    """Return one JSON object without credentials: time, level, logger, message, then the fields."""
    line = _with_exception(line)
    written = _json(line)
    # One look at all of it, since most lines hold nothing of the kind.
    return _json(redacted(line, secrets)) if secrets.suspects(written) else written


def _json(line: Line) -> str:
    said: dict[str, Any] = {
        "time": _utc(line.created),
        "level": _level(line.level),
        "logger": line.logger,
        "message": line.message,
    }
    if line.trace_id:
        said["trace_id"] = line.trace_id
    said.update(line.fields)
    if line.exception:
        said["exception"] = line.exception
    if line.stack:
        said["stack"] = line.stack
    try:
        return _ENCODER.encode(said).decode() + "\n"
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What msgspec refuses: a lone surrogate, an object of a library.
        return json.dumps(said, ensure_ascii=False, default=str) + "\n"


def text_for(terminal: TextIO) -> Callable[[Line], str]:
    """Return what makes coloured text for ``terminal``, as wide as its longest line."""
    from rich.console import Console  # noqa: PLC0415 - 80 ms that a container, which logs JSON, can spare
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(file=terminal, highlight=False)

    def text(line: Line) -> str:
        line = redacted(line)
        moment = datetime.fromtimestamp(line.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        said = Text.assemble(
            (f"{moment} ", "dim"),
            (f"{logging.getLevelName(line.level):<8} ", _STYLES.get(line.level, "")),
            _printable(line.message),
            (_pairs(line.fields), "dim"),
        )
        for trouble in filter(None, (line.exception, line.stack)):
            said.append("\n" + trouble, "red")
        with console.capture() as shown:
            console.print(said, soft_wrap=True)
        return shown.get()

    return text


def _pairs(fields: Mapping[str, Any]) -> str:
    return "".join(f" {key}={_printable(_plain(value))}" for key, value in fields.items())


def _plain(value: Any) -> str:
    return " → ".join(map(str, value)) if isinstance(value, list) else str(value)


def _printable(text: str) -> str:
    """Escape what would move a terminal's cursor: some of what is logged was chosen by callers."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


@lru_cache(maxsize=16)
def _level(level: int) -> str:
    return logging.getLevelName(level).lower()


def _utc(moment: float) -> str:
    second = int(moment)
    return _utc_second(second) + _MILLISECONDS[int((moment - second) * 1000)]


@lru_cache(maxsize=4)
def _utc_second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")
