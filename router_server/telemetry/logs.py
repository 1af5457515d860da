"""The process's log on standard error: JSON lines, or coloured text on a terminal.

Records are written by a thread of their own, so that a slow terminal or a full pipe never stops the event
loop; where even its queue of 10,000 is full, records are dropped and counted. Refuses to know what is
logged.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO

from router_server.telemetry.lines import Line, json_line, text_for
from router_server.telemetry.redaction import message_of
from router_server.telemetry.unsampled import current_trace_id

LogFormat = Literal["auto", "json", "text"]

_QUEUE_SIZE: Final = 10_000
_GATHERING: Final = 0.02
"""Seconds that the first line of several waits for the others."""
_SELDOM: Final = 600.0
"""Seconds between two equal complaints of the telemetry library."""

_CHATTY: Final = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "openai", "urllib3"),
    *("aiohttp.access", "asyncio"),
)
"""Libraries whose INFO is our DEBUG."""

_log = logging.getLogger(__name__)


class Logs:
    """The configured log; `close` writes what is queued and gives the root logger back."""

    def __init__(self, stream: TextIO) -> None:
        root = logging.getLogger()
        self._stream = stream
        self._writer = _Writer(stream)
        self._outlet = _Outlet(self._writer)
        self._outlet.addFilter(_Seldom())
        self._before = root.handlers[:], root.level
        root.handlers[:] = [self._outlet]

    def change(self, log_format: LogFormat, level: str) -> None:
        """Write in another form, or more or less than before; arguments as those of `configure`."""
        as_text = log_format == "text" or (log_format == "auto" and self._stream.isatty())
        self._writer.form = text_for(self._stream) if as_text else json_line
        root = logging.getLogger()
        root.setLevel(level.upper())
        chatty = logging.WARNING if root.level > logging.DEBUG else logging.NOTSET
        for name in _CHATTY:
            logging.getLogger(name).setLevel(chatty)

    def say(self, logger: logging.Logger, level: int, message: str, fields: dict[str, Any]) -> None:
        """Write a line without the detours of `logging`, which take 20 µs.

        Whether ``logger`` is enabled for ``level`` is asked by who calls this.
        """
        self._outlet.enqueue(Line(time.time(), level, logger.name, message, fields))

    def close(self) -> None:
        """Write what is queued, which may block as long as standard error does."""
        root = logging.getLogger()
        root.handlers[:], level = self._before
        root.setLevel(level)
        self._outlet.close()
        self._writer.close()


def configure(log_format: LogFormat = "auto", level: str = "info", stream: TextIO | None = None) -> Logs:
    """Make the root logger write to ``stream``, standard error if None.

    Args:
        log_format: ``auto`` is text on a terminal and JSON elsewhere.
        level: debug, info, warning, error or critical.
        stream: where lines go.
    """
    logs = Logs(sys.stderr if stream is None else stream)
    logs.change(log_format, level)
    return logs


class _Outlet(logging.Handler):
    """Makes lines of records and hands them to the writing thread, never waiting for it."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a copy of the record: its arguments may change before it is written."""
        self.enqueue(
            Line(
                record.created,
                record.levelno,
                record.name,
                message_of(record),
                getattr(record, "fields", {}),
                current_trace_id(),
                record.exc_info,
                record.exc_text or "",
                record.stack_info or "",
            )
        )

    def enqueue(self, line: Line) -> None:
        """Queue the line, or count it where the queue is full."""
        if self._dropped and self._writer.put(self._lost()):
            self._dropped = 0
        if not self._writer.put(line):
            self._dropped += 1

    def _lost(self) -> Line:
        message = f"{self._dropped} log records were dropped: nobody reads the log fast enough."
        return Line(time.time(), logging.WARNING, _log.name, message, {})


class _Writer:
    """The thread that redacts, formats and writes: all lines of a moment at once.

    A thread that is woken for every line costs 60 µs for each.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.form: Callable[[Line], str] = json_line
        self._lines: deque[Line] = deque()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> bool:
        """Queue ``line``; tell whether there was room."""
        if len(self._lines) >= _QUEUE_SIZE:
            return False
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()
        return True

    def close(self) -> None:
        """Return once everything is written."""
        self._closing.set()
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._closing.wait(_GATHERING)
            self._news.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            self._stream.write("".join(map(self._formed, lines)))
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever read the log is gone: there is nobody to tell.
            return

    def _formed(self, line: Line) -> str:
        try:
            return self.form(line)
        except Exception as error:  # noqa: BLE001 - whatever somebody logs must not end the log
            return json_line(Line(line.created, logging.ERROR, _log.name, f"not written: {type(error)}"))


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
