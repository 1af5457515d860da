"""The file that keeps the hashes of API keys: read by servers, written by `router-server keys`."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from router_server.auth.key_set import Change, Keys, KeysError, data_of, keys_of

_HEAD: Final = (
    "# Written by `router-server keys`. It holds hashes of keys, not the keys: those are shown once.\n"
)


class KeyFile:
    """A file of keys.

    Args:
        path: where it is; it need not exist before the first change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    async def version(self) -> Any:
        """Return what is another once the file has changed."""
        try:
            stat = self._path.stat()
        except OSError as error:
            return error.errno
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    async def keys(self) -> Keys:
        """Return the keys in it.

        Raises:
            KeysError: it cannot be read, or is not such a file.
        """
        return self.read()

    def read(self) -> Keys:
        """Return the keys in it.

        Raises:
            KeysError: it cannot be read, or is not such a file.
        """
        try:
            data = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise KeysError(f"{self}: cannot be read: {os.strerror(error.errno or 0)}") from None
        except (UnicodeDecodeError, yaml.YAMLError):
            raise KeysError(f"{self}: is not YAML in UTF-8; restore it, or write a new one") from None
        return keys_of(data, str(self))

    async def change(self, change: Change) -> None:
        """Replace the keys by what ``change`` makes of them; others who change them wait.

        Readers see the file before or after it, never in between. A new file is for its owner alone.

        Raises:
            KeysError: it cannot be read or written, or ``change`` raises it.
        """
        with self._alone():
            keys = change(self.read() if self._path.exists() else ())
            try:
                self._replace(_HEAD + yaml.safe_dump(data_of(keys), sort_keys=False))
            except OSError as error:
                raise KeysError(f"{self}: cannot be written: {os.strerror(error.errno or 0)}") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # A file of its own is locked: the one that is locked must not be the one that is replaced.
        try:
            lock = self._path.with_name(f".{self._path.name}.lock").open("w")
        except OSError as error:
            raise KeysError(f"{self}: its folder cannot be used: {os.strerror(error.errno or 0)}") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _replace(self, text: str) -> None:
        mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o600
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        new = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(handle)
            new.chmod(mode)
            new.replace(self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
