"""Reading the configuration again while the server runs: when, what of it can change, and what is said of it.

Refuses to know how a configuration is put into service.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from router_server.config import Config, ConfigError, Problem, warnings_of
from router_server.config.problems import dotted
from router_server.config.references import check
from router_server.pricing import warnings_of_prices
from router_server.providers import SetupError

_LIVE_KEYS: Final = {
    "server": frozenset({"allow_direct", "deadline", "drain_delay", "drain_grace"}),
    "telemetry": frozenset({"log"}),
}
"""Of these sections: what can change while the server runs."""

_NAMED: Final = ("providers", "targets", "routes")
"""The sections of named entries."""
_FIXED_SECTIONS: Final = ("redis",)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from.

    Attributes:
        read: reads it; raises `ConfigError`.
        path: the file to watch, or None where there is none.
    """

    read: Callable[[], Config]
    path: Path | None = None


def settled(running: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """Return ``wanted`` as far as it can be had now, and the keys that stay as they are in ``running``.

    Raises:
        ConfigError: with what stays, it makes no sense.
    """
    staying = [key for key in _FIXED_SECTIONS if getattr(running, key) != getattr(wanted, key)]
    updates: dict[str, Any] = {key: getattr(running, key) for key in _FIXED_SECTIONS}
    for section, live in _LIVE_KEYS.items():
        was, now = getattr(running, section), getattr(wanted, section)
        fixed = {key: getattr(was, key) for key in type(was).model_fields if key not in live}
        staying += [f"{section}.{key}" for key in fixed if fixed[key] != getattr(now, key)]
        updates[section] = now.model_copy(update=fixed)
    config = wanted.model_copy(update=updates)
    _check_whole(config)
    return config, tuple(staying)


def _check_whole(config: Config) -> None:
    names = {name: frozenset(getattr(config, name)) for name in _NAMED}
    problems = tuple(Problem(0, dotted(found.path), found.message) for found in check(config, names))
    if problems:
        raise ConfigError("with what cannot change while the server runs", problems)


class Reloader:
    """Reads the configuration again whenever asked, one time after another.

    Args:
        source: where it comes from.
        config: what is in use.
        apply: puts another into service; may raise `SetupError`.
        refused: told that none was.

    Attributes:
        config: what is in use now.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        apply: Callable[[Config], Awaitable[None]],
        refused: Callable[[], Awaitable[None]],
    ) -> None:
        self._source = source
        self._apply = apply
        self._refused = refused
        self.config = config

    @property
    def path(self) -> Path | None:
        """The file, where there is one."""
        return self._source.path

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever ``asked`` is set, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            await self.reload()

    async def reload(self) -> bool:
        """Reload once; tell whether the configuration was taken."""
        try:
            wanted = await asyncio.to_thread(self._source.read)
            config, staying = settled(self.config, wanted)
            await self._apply(config)
        except (ConfigError, SetupError) as error:
            for line in str(error).splitlines():
                _log.error("The configuration is refused and stays as it was: %s", line)
            await self._refused()
            return False
        except Exception:  # noqa: BLE001 - a kind is someone else's code; the next file may be read all the same
            _log.exception("The configuration is refused and stays as it was: it could not be built.")
            await self._refused()
            return False
        self._say(config, staying)
        self.config = config
        return True

    def _say(self, config: Config, staying: tuple[str, ...]) -> None:
        if staying:
            _log.warning(
                "Of the configuration these keys stay as they were, restart for them: %s", ", ".join(staying)
            )
        if config == self.config:
            _log.info("The configuration was read again: nothing that can change now has changed.")
            return
        for words in _warnings(config):
            if words not in _warnings(self.config):
                _log.warning("%s", words)
        changes = ", ".join(_changes(self.config, config))
        _log.info("The configuration was read again and is in use; changed: %s", changes)


def _warnings(config: Config) -> tuple[str, ...]:
    return (*warnings_of(config), *warnings_of_prices(config))


def _changes(before: Config, after: Config) -> Iterator[str]:
    for section in _NAMED:
        was, now = getattr(before, section), getattr(after, section)
        for name in dict.fromkeys((*was, *now)):
            if was.get(name) != now.get(name):
                word = "" if name in was and name in now else (" (new)" if name in now else " (removed)")
                yield f"{section}.{name}{word}"
    for section in Config.model_fields:
        if section not in _NAMED and getattr(before, section) != getattr(after, section):
            yield section


class Watch:
    """Looks whether a file says something else than before.

    A change counts once two looks have seen the same: a file that is being written is not read. Its name is
    followed anew each time, since a ConfigMap is changed by turning a symbolic link.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, ...] | None = None
        self._seen = self._used = self._digest()

    def changed(self) -> bool:
        """Look once; tell whether there is something new. Blocks for a file's time."""
        before, self._seen = self._seen, self._digest()
        if self._seen is None or self._seen != before or self._seen == self._used:
            return False
        self._used = self._seen
        return True

    def _digest(self) -> bytes | None:
        try:
            stat = self._path.stat()
            state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if state != self._state:
                self._contents = hashlib.sha256(self._path.read_bytes()).digest()
                self._state = state
        except OSError:
            self._state = None
            return None
        return self._contents


async def watch(path: Path, every: float, changed: Callable[[], None]) -> None:
    """Call ``changed`` whenever the file has, until cancelled; ``every`` so many seconds it is looked at."""
    looking = await asyncio.to_thread(Watch, path)
    while True:
        await asyncio.sleep(every)
        if await asyncio.to_thread(looking.changed):
            changed()
