"""The process's log on standard error: JSON lines, or coloured text on a terminal.

Records are written by a thread of their own, so that a slow terminal or a full pipe never stops the event
loop; where even its queue of 10,000 is full, records are dropped and counted. Refuses to know what is
logged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Any, Final, Literal, TextIO

from router_server.telemetry.redaction import RedactionFilter, message_of
from router_server.telemetry.unsampled import current_trace_id

LogFormat = Literal["auto", "json", "text"]

_QUEUE_SIZE: Final = 10_000
_SELDOM: Final = 600.0
"""Seconds between two equal complaints of the telemetry library."""

_CHATTY: Final = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "openai", "urllib3"),
    *("aiohttp.access", "asyncio"),
)
"""Libraries whose INFO is our DEBUG."""

_STYLES: Final = {
    logging.DEBUG: "dim",
    logging.INFO: "green",
    logging.WARNING: "yellow",
    logging.ERROR: "bold red",
    logging.CRITICAL: "bold white on red",
}

_log = logging.getLogger(__name__)


class Logs:
    """The configured log; `close` writes what is queued and gives the root logger back."""

    def __init__(self, outlet: _Outlet, listener: QueueListener) -> None:
        root = logging.getLogger()
        self._outlet = outlet
        self._listener = listener
        self._before = root.handlers[:], root.level

    def close(self) -> None:
        """Write what is queued, which may block as long as standard error does."""
        root = logging.getLogger()
        root.handlers[:], level = self._before
        root.setLevel(level)
        self._outlet.close()
        self._listener.stop()


def configure(log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> Logs:
    """Make the root logger write to ``stream``, standard error if None.

    Args:
        log_format: ``auto`` is text on a terminal and JSON elsewhere.
        level: debug, info, warning, error or critical.
        stream: where lines go.
    """
    stream = sys.stderr if stream is None else stream
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    writer = _text_handler(stream) if as_text else _json_handler(stream)
    writer.addFilter(RedactionFilter())
    outlet = _Outlet(Queue(_QUEUE_SIZE))
    outlet.addFilter(_Seldom())
    listener = QueueListener(outlet.queue, writer)
    logs = Logs(outlet, listener)
    root = logging.getLogger()
    root.handlers[:] = [outlet]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING if root.level > logging.DEBUG else logging.NOTSET)
    listener.start()
    return logs


class _Outlet(QueueHandler):
    """Hands copies of records to the writing thread, and never waits for it."""

    queue: Queue[Any]

    def __init__(self, records: Queue[Any]) -> None:
        super().__init__(records)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Copy the record, formatted: its arguments may change before it is written."""
        prepared = logging.makeLogRecord(record.__dict__)
        prepared.msg = message_of(record)
        prepared.args = ()
        prepared.trace_id = current_trace_id()
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue the record, or count it where the queue is full."""
        try:
            if self._dropped:
                self.queue.put_nowait(self._lost())
                self._dropped = 0
            self.queue.put_nowait(record)
        except Full:
            self._dropped += 1

    def _lost(self) -> logging.LogRecord:
        message = f"{self._dropped} log records were dropped: nobody reads the log fast enough."
        return _log.makeRecord(_log.name, logging.WARNING, __file__, 0, message, (), None)


class _Seldom(logging.Filter):
    """Lets a complaint of the telemetry library pass once in ten minutes.

    It complains per span and per malformed header, hence as often as callers wish.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry."):
            return True
        now = time.monotonic()
        key = (record.name, str(record.msg))
        if now - self._last.get(key, -_SELDOM) < _SELDOM:
            return False
        self._last[key] = now
        return True


def _json_handler(stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    return handler


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the record's ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        if getattr(record, "trace_id", ""):
            line["trace_id"] = record.__dict__["trace_id"]
        line.update(getattr(record, "fields", {}))
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False, default=str)


def _text_handler(stream: TextIO) -> logging.Handler:
    from rich.console import Console  # noqa: PLC0415 - 80 ms that a container, which logs JSON, can spare
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(file=stream, highlight=False)

    class _Terminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
            line = Text.assemble(
                (f"{moment} ", "dim"),
                (f"{record.levelname:<8} ", _STYLES.get(record.levelno, "")),
                _printable(message_of(record)),
                (_pairs(getattr(record, "fields", {})), "dim"),
            )
            for trace_text in filter(None, (record.exc_text, record.stack_info)):
                line.append("\n" + trace_text, "red")
            console.print(line, soft_wrap=True)

    return _Terminal()


def _pairs(fields: dict[str, Any]) -> str:
    return "".join(f" {key}={_printable(_plain(value))}" for key, value in fields.items())


def _plain(value: Any) -> str:
    return " → ".join(map(str, value)) if isinstance(value, list) else str(value)


def _printable(text: str) -> str:
    """Escape what would move a terminal's cursor: some of what is logged was chosen by callers."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
