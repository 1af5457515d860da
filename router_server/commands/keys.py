"""``keys``: the API keys of callers, made, listed, replaced and revoked while servers run.

A key is printed once, alone on standard output, so that it can be piped; what is said about it goes to
standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from pydantic import ValidationError

from router_server.auth.api_keys import hash_of, new_key
from router_server.auth.key_file import KeyFile
from router_server.auth.key_set import Adding, Change, Keys, KeysError, Revoking, Rotating
from router_server.auth.key_store import SharedKeys
from router_server.auth.live_keys import LOOK_EVERY
from router_server.commands.exits import Exit
from router_server.commands.terminal import fail, name_mistakes, say
from router_server.config import ConfigError, load
from router_server.config.budgets import budget_words
from router_server.config.callers import KeyConfig
from router_server.core.duration import parse_duration
from router_server.core.shared import UnreachableError
from router_server.state.opening import State, open_state

_FINGERPRINT: Final = 8
"""Characters of a hash that are shown: enough to tell keys apart."""


class Place(Protocol):
    """Where keys are kept."""

    async def keys(self) -> Keys:
        """Return them."""

    async def change(self, change: Change) -> None:
        """Change them."""


Action = Callable[[Place, argparse.Namespace], Coroutine[Any, Any, None]]


def run(arguments: argparse.Namespace) -> Exit:
    """Do what is asked of the keys; return what came of it."""
    try:
        asyncio.run(_run(arguments))
    except ConfigError as error:
        return name_mistakes(error)
    except KeysError as error:
        return fail(str(error), Exit.FAILED)
    except UnreachableError:
        return fail("Redis does not answer; see whether its address is right and it is up", Exit.FAILED)
    return Exit.OK


async def _run(arguments: argparse.Namespace) -> None:
    act = _ACTIONS[arguments.action]
    if arguments.file is not None:
        await act(KeyFile(arguments.file), arguments)
        return
    config = load(arguments.config, os.environ)
    keys = None if config.auth is None else config.auth.api_keys
    if keys is not None and keys.file is not None:
        await act(KeyFile(keys.file), arguments)
    elif keys is not None and keys.redis and config.redis is not None:
        await _in_redis(open_state(config.redis.get_secret_value()), act, arguments)
    else:
        raise KeysError(
            f"{arguments.config}: auth.api_keys names neither a file nor redis; keys that stand in it are "
            "changed there"
        )


async def _in_redis(state: State, act: Action, arguments: argparse.Namespace) -> None:
    try:
        await state.connect()
        await act(SharedKeys(state.shared), arguments)
    finally:
        await state.close()


async def _add(place: Place, arguments: argparse.Namespace) -> None:
    secret = new_key()
    key = _described(arguments, hash_of(secret))
    await place.change(Adding(key))
    _hand_over(secret, f"This is the key of {key.name}, shown once and kept nowhere.")


async def _list(place: Place, arguments: argparse.Namespace) -> None:
    keys = await place.keys()
    if arguments.json:
        shown = [
            key.model_dump(mode="json", exclude={"sha256"}) | {"fingerprint": _mark(key)} for key in keys
        ]
        say(json.dumps({"keys": shown}))
        return
    rows = [("name", "fingerprint", "expires", "routes", "limits", "budget", "labels"), *map(_row, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


async def _revoke(place: Place, arguments: argparse.Namespace) -> None:
    await place.change(Revoking(arguments.name))
    _tell(f"{arguments.name} has no key any more; servers see it within {_within()}.")


async def _rotate(place: Place, arguments: argparse.Namespace) -> None:
    secret, now = new_key(), _now()
    ends = now + timedelta(seconds=_duration(arguments.overlap))
    await place.change(Rotating(arguments.name, hash_of(secret), now, ends))
    until = "at once" if ends <= now else f"at {_shown(ends)} at the latest"
    _hand_over(
        secret, f"This is the new key of {arguments.name}, shown once. The one before it ends {until}."
    )


_ACTIONS: Final[dict[str, Action]] = {"add": _add, "list": _list, "revoke": _revoke, "rotate": _rotate}


def _described(arguments: argparse.Namespace, sha256: str) -> KeyConfig:
    given = {
        "name": arguments.name,
        "sha256": sha256,
        "routes": arguments.routes,
        "limits": _of(arguments, "requests_per_minute", "tokens_per_minute", "max_concurrency"),
        "budget": _of(arguments, "daily_usd", "monthly_usd"),
        "expires": None if arguments.expires is None else _moment(arguments.expires),
        "labels": dict(map(_label, arguments.label)),
        "created": _now(),
    }
    try:
        return KeyConfig.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        option = (
            ".".join(map(str, wrong["loc"])).removeprefix("limits.").removeprefix("budget.").replace("_", "-")
        )
        raise KeysError(f"{option}: {wrong['msg'].removeprefix('Value error, ')}") from None


def _of(arguments: argparse.Namespace, *names: str) -> dict[str, Any] | None:
    """Return what is given of those options; None where nothing is."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None} or None


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise KeysError("label: is not NAME=VALUE")
    return name, value


def _moment(text: str) -> datetime | str:
    """Return the moment that a duration from now ends, or the text, which is a moment itself then."""
    try:
        return _now() + timedelta(seconds=parse_duration(text))
    except ValueError:
        return text


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise KeysError(f"overlap: {error}") from None


def _row(key: KeyConfig) -> Sequence[str]:
    limits = {} if key.limits is None else key.limits.model_dump(exclude_none=True)
    budget = "-" if key.budget is None else budget_words(key.budget)
    ended = " (expired)" if key.expires is not None and key.expires <= _now() else ""
    return (
        key.name,
        _mark(key),
        "never" if key.expires is None else f"{_shown(key.expires)}{ended}",
        "all" if key.routes is None else ", ".join(key.routes),
        ", ".join(f"{name}: {value}" for name, value in limits.items()) or "-",
        budget,
        ", ".join(f"{name}={value}" for name, value in key.labels.items()) or "-",
    )


def _mark(key: KeyConfig) -> str:
    return key.sha256[:_FINGERPRINT]


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _within() -> str:
    return f"{LOOK_EVERY:.0f} s"


def _hand_over(secret: str, words: str) -> None:
    _tell(f"{words} Servers know it within {_within()}.")
    sys.stdout.write(f"{secret}\n")


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
