"""Which engines a configuration wants, and where each listens. Refuses to start any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

from router_server.config.tree import Config
from router_server.core.engine import EngineSpec
from router_server.providers import load_kind

_DIGITS: Final = 10
"""Of a provider's digest: 40 bits, for some dozens of names."""
_LONGEST_FOLDER: Final = 76
"""Bytes: a Unix socket's path has at most 107, 103 on macOS, and the random part and the file follow."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An engine that a provider wants."""

    provider: str
    spec: EngineSpec


def engines_of(config: Config, folder: Path) -> dict[str, Wanted]:
    """Return the engines that the providers of ``config`` want, by their keys."""
    found = {name: engine_of(config, name, folder) for name in config.providers}
    return {spec.key: Wanted(name, spec) for name, spec in found.items() if spec is not None}


def engine_of(config: Config, provider: str, folder: Path) -> EngineSpec | None:
    """Return the engine that a provider wants, or None."""
    settings = config.providers[provider]
    engine = load_kind(settings.kind).engine
    plan = None if engine is None else engine(settings.settings, "")
    if engine is None or plan is None:
        return None
    return engine(settings.settings, str(folder / f"{_digest(provider, plan, folder)}.sock"))


def _digest(provider: str, plan: EngineSpec, folder: Path) -> str:
    """Return what is the same as long as the same process will do; the socket has its name from it.

    Not the provider's name, which may be long. The folder's random one is in it, as a secret may be too.
    """
    process = (plan.command, sorted(plan.env.items()), sorted(plan.without), plan.log)
    return sha256(repr((folder.name, provider, process)).encode()).hexdigest()[:_DIGITS]


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give a folder that nobody else may enter, until the context ends."""
    base = gettempdir()
    parent = "/tmp" if len(base) > _LONGEST_FOLDER else base  # noqa: S108 - the folder itself is private
    with TemporaryDirectory(prefix="modelrouter-", dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)
