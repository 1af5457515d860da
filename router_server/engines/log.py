"""Keeps what engines print: in a file each, by time and name, without secrets, in bounded space.

Lines are read and written by a thread for each process, so that neither a slow disk nor a chatty engine
takes a moment of the event loop. Refuses to understand what engines say.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from router_server.core.engine import EngineLogFile
from router_server.telemetry.redaction import RedactionFilter

_LONGEST_LINE: Final = 8192
_MOST_ROUTERS: Final = 64
"""That one user has with a provider of the same name and the same folder for its log."""
_KEPT: Final = 20
"""Last lines that are shown where an engine fails."""

_log = logging.getLogger(__name__)


class EngineLog:
    """The log of one engine, over all of its processes.

    Args:
        name: the provider's.
        settings: where and how much.
    """

    def __init__(self, name: str, settings: EngineLogFile) -> None:
        self._name = name
        self._recent: deque[str] = deque(maxlen=_KEPT)
        self._redaction = RedactionFilter()
        self._file = _opened(settings.folder, _file_name(name), settings)
        self.path = Path(self._file.baseFilename) if self._file else settings.folder

    @property
    def recent(self) -> tuple[str, ...]:
        """The last lines, the newest last."""
        return tuple(self._recent)

    @property
    def last(self) -> str:
        """The last line, or an empty text."""
        return self._recent[-1] if self._recent else ""

    def begin(self) -> None:
        """Another process begins: what the one before said is no longer recent."""
        self._recent.clear()

    def follow(self, stream: int) -> asyncio.Event:
        """Keep all that comes from ``stream``, a file descriptor, on a thread, and close it at its end.

        Returns:
            An event that is set when everything was read: every process that held the other end has ended.
        """
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def read() -> None:
            self._follow(stream)
            with contextlib.suppress(RuntimeError):  # the loop may have been closed while this was late
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=read, name=f"log {self._name}", daemon=True).start()
        return done

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _follow(self, stream: int) -> None:
        with os.fdopen(stream, "rb", buffering=0) as pipe:
            for line in _lines(iter(lambda: pipe.read(_LONGEST_LINE), b"")):
                self._keep(line)

    def _keep(self, line: str) -> None:
        record = logging.LogRecord(self._name, logging.INFO, "", 0, line, None, None)
        self._redaction.filter(record)
        self._recent.append(record.getMessage())
        if self._file is not None:
            self._file.handle(record)


class _File(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        """Open the file for us alone: two that rotate one file lose each other's lines.

        Raises:
            BlockingIOError: another router writes to it.
        """
        stream = super()._open()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Lose the line: a full disk must not stop an engine, as a pipe that nobody reads would."""


def _opened(folder: Path, name: str, settings: EngineLogFile) -> _File | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _own_file(folder, name, settings)
    except OSError as error:
        _log.warning(
            "The log of an engine cannot be kept in %s: %s; set serve.log.folder to one that can be written.",
            folder,
            error.strerror,
        )
        return None
    file.setFormatter(logging.Formatter("%(asctime)s [%(name)s] %(message)s"))
    return file


def _own_file(folder: Path, name: str, settings: EngineLogFile) -> _File:
    """Open ``name.log``, or the first of ``name-2.log`` and so on that no other router writes to."""
    for suffix in ("", *(f"-{number}" for number in range(2, _MOST_ROUTERS + 1))):
        with contextlib.suppress(BlockingIOError):
            path = folder / f"{name}{suffix}.log"
            return _File(path, maxBytes=settings.max_bytes, backupCount=settings.files, encoding="utf-8")
    raise BlockingIOError(errno.EAGAIN, f"{_MOST_ROUTERS} routers write there")


def _file_name(name: str) -> str:
    """Return a provider's name with nothing in it that means something in a path."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield lines; a progress bar that rewrites its line by carriage returns is many."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk.replace(b"\r", b"\n")).split(b"\n")
        if len(rest) >= _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        yield from _texts(whole)
    yield from _texts([rest])


def _texts(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            yield text
